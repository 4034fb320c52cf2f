//! The counts of allocations, which another program makes: `counting.rs`.

use crate::{rows::Rows, shared::cargo};

/// Adds the counts to these rows. Cargo builds the program if need be.
pub(crate) fn add(rows: &mut Rows) -> Result<(), String> {
    let mut command = cargo::command();
    command.args(["bench", "--quiet", "--package", "benches", "--bench", "overhead_allocations"]);
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
