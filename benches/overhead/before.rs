//! Another build of this bench, run beside this one: `OVERHEAD_BEFORE` names it.

use std::{ffi::OsString, process::Command};

use crate::rows::Rows;

/// Another build of this bench, and what it has measured.
pub(crate) struct Before {
    program: OsString,
    pub(crate) rows: Rows,
}

impl Before {
    /// Returns the build that the environment names, if it names one.
    pub(crate) fn from_env() -> Option<Self> {
        std::env::var_os("OVERHEAD_BEFORE").map(|program| Self { program, rows: Rows::default() })
    }

    /// Lets the other build measure the group of this name.
    pub(crate) fn measure(&mut self, group: &str) {
        let run = Command::new(&self.program).args(["--rows", group]).env_remove("OVERHEAD_BEFORE").output();
        let output = run.unwrap_or_else(|error| panic!("OVERHEAD_BEFORE, {}: {error}", self.program.display()));
        assert!(output.status.success(), "OVERHEAD_BEFORE fails: {}", String::from_utf8_lossy(&output.stderr));
        self.rows.read(&String::from_utf8_lossy(&output.stdout));
    }
}
