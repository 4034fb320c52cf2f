//! `state`: the file in which the relay keeps what it has learned over a restart.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use crate::config::{toml::Section, values::text};

/// Takes the path. A relative one begins at `folder`, where the settings file is: the relay may be started from anywhere,
/// and has to find its state again.
pub(crate) fn read(file: &mut Section<'_>, folder: Option<&Path>) -> Option<PathBuf> {
    let path = file.get("state", text).map(PathBuf::from)?;
    Some(folder.map_or_else(|| path.clone(), |folder| folder.join(&path)))
}

/// Finds out whether the file can be written, without touching one that is there. `settings` is the file of the settings,
/// which the state must not replace.
pub(crate) fn check(path: &Path, settings: Option<&Path>) -> Result<(), String> {
    let shown = path.display();
    if path.is_dir() {
        return Err(format!("state: {shown} is a folder; it is the path of a file"));
    }
    if path.exists() && !path.is_file() {
        return Err(format!("state: {shown} is no file that can be replaced; it is the path of one"));
    }
    let same = |settings: &Path| Some(path.canonicalize().ok()? == settings.canonicalize().ok()?);
    if settings.and_then(same) == Some(true) {
        return Err(format!("state: {shown} is the file of the settings, which it would replace; name another one"));
    }
    let (temporary, written) = (temporary(path), create_temporary(path));
    let _ = fs::remove_file(&temporary);
    written.map(|_| ()).map_err(|error| {
        format!(
            "state: {} cannot be written: {error}; it is a file in a folder that exists and that the relay may write to",
            temporary.display()
        )
    })
}

/// Returns the path of the file that is written first, and then put in the place of the state.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Creates that file, which nobody else may read.
pub(crate) fn create_temporary(path: &Path) -> io::Result<File> {
    let temporary = temporary(path);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    // Never through a link that somebody has put there.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(temporary)
}
