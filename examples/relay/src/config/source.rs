//! The place from which the settings are read, at the start and at each reload.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::config::{
    hidden::Hidden,
    plan::Plan,
    settings::{Overrides, Settings},
    state,
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
        let folder = self.file.as_deref().and_then(Path::parent).map(Path::to_owned);
        let overrides = Overrides { folder, ..self.overrides.clone() };
        let mut settings = Settings::parse(&text, &overrides).map_err(|mistakes| mistakes.render(&name, &text))?;
        settings.remarks.iter_mut().for_each(|remark| remark.insert_str(0, &name));
        Plan::new(settings).map_err(|error| format!("{name}: {}", Hidden::of(&text).clean(&error.to_string())))
    }

    /// Reads the settings as [`read`](Self::read) does, and checks that the state can be written. A reload does not: a
    /// disk that is full then must not keep settings back.
    pub(crate) fn read_first(&self) -> Result<Plan, String> {
        let plan = self.read()?;
        if let Some(path) = &plan.settings.state {
            let name = self.file.as_deref().map(|file| file.display().to_string()).unwrap_or_default();
            state::check(path, self.file.as_deref()).map_err(|mistake| format!("{name}: {mistake}"))?;
        }
        Ok(plan)
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
