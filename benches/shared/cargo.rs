//! Cargo, run by a program that cargo has run.

use std::{env, path::Path, process::Command};

/// Returns a command of cargo's in this workspace, to which arguments are added.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    // Cargo tells a program of its package. The build script of ring looks at these variables, and would build anew.
    for (name, _) in env::vars_os() {
        let is_told = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"].iter().any(|told| name.starts_with(told))
        });
        if is_told || name == "LD_LIBRARY_PATH" || name == "OUT_DIR" {
            command.env_remove(name);
        }
    }
    command
}
