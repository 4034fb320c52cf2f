//! The counts of allocations, which another program makes: `counting.rs`.

use std::{path::Path, process::Command};

use crate::rows::Rows;

/// Adds the counts to these rows. Cargo builds the program if need be.
pub(crate) fn add(rows: &mut Rows) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let mut command = Command::new(cargo);
    command.args(["bench", "--quiet", "--bench", "overhead_allocations", "--manifest-path"]).arg(manifest);
    let output = command.args(["--", "--rows", "--test"]).env_remove("OVERHEAD_BEFORE").output();
    let output = output.map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut counted = Rows::default();
    counted.read(&String::from_utf8_lossy(&output.stdout));
    rows.count(&counted);
    Ok(())
}
