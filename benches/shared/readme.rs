//! The tables in `benches/README.md`, each between two markers.

use std::{fs, path::Path, process::Command};

/// Puts the output of a command between its markers, with the machine and the day.
pub(crate) fn write(command: &str, output: &str) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let failed = |error| format!("{}: {error}", file.display());
    let text = fs::read_to_string(&file).map_err(failed)?;
    let begin = format!("<!-- the output of `{command}` -->\n");
    let replaced = text.split_once(&*begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once("<!-- end -->")?;
        Some(format!("{before}{begin}{}\n\n{}\n<!-- end -->{after}", circumstances(), output.trim_end()))
    });
    let replaced = replaced.ok_or_else(|| format!("{}: no {begin}", file.display()))?;
    fs::write(&file, replaced).map_err(failed)
}

/// Returns a line with the machine, its programs and the day.
pub(crate) fn circumstances() -> String {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
    };
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let day = said("date", &["-u", "+%F"]).unwrap_or_default();
    let rustc = said("rustc", &["--version"]).unwrap_or_default();
    let kernel = said("uname", &["-sr"]).unwrap_or_default();
    // Behind it stands the name of a build.
    let kernel = kernel.split('-').next().unwrap_or_default();
    format!("{day}; {}, {cores} cores; {kernel}; {rustc}", processor.unwrap_or("an unknown processor"))
}
