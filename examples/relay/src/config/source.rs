//! The place from which the settings are read, at the start and at each reload.

use std::{fs, path::PathBuf};

use crate::config::{
    hidden::Hidden,
    plan::Plan,
    settings::{Overrides, Settings},
};

/// The settings without a file: the emulator answers, so that a first try needs no key.
const BUILT_IN: &str = "upstream = \"emulator\"";

/// A settings file, and the settings that hold in place of its own.
pub(crate) struct Source {
    pub(crate) file: Option<PathBuf>,
    pub(crate) overrides: Overrides,
}

impl Source {
    /// Reads the settings and checks that they fit together. The error is for people: one line for each mistake.
    pub(crate) fn read(&self) -> Result<Plan, String> {
        let name = self.file.as_ref().map_or_else(|| "built-in settings".to_owned(), |path| path.display().to_string());
        let text = self.text(&name)?;
        let mut settings = Settings::parse(&text, &self.overrides).map_err(|mistakes| mistakes.render(&name, &text))?;
        settings.remarks.iter_mut().for_each(|remark| remark.insert_str(0, &name));
        Plan::new(settings).map_err(|error| format!("{name}: {}", Hidden::of(&text).clean(&error.to_string())))
    }

    fn text(&self, name: &str) -> Result<String, String> {
        let Some(path) = &self.file else { return Ok(BUILT_IN.to_owned()) };
        let bytes = fs::read(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
        String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("{name}:{line}: is not UTF-8, which TOML has to be")
        })
    }
}
