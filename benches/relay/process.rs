//! Other programs: started, looked at through `/proc`, and ended with the bench.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// The memory of a program in MiB; none if it cannot be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All of it (`VmRSS`), with the pages of the program's file that it has touched.
    pub(crate) resident: Option<f64>,
    /// The part that it has allocated (`RssAnon`).
    pub(crate) own: Option<f64>,
}

impl Process {
    /// Starts a program that prints the address on which it listens, as the last word of its first line.
    pub(crate) fn printing(command: &mut Command) -> Result<Self, String> {
        let shown = format!("{command:?}");
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("{shown}: {error}"))?;
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let _ = output.read_line(&mut line);
        // A pipe that is closed would be an error for whoever prints later.
        thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let address = line.split([' ', ',', '\n']).find_map(|word| word.trim_start_matches("http://").parse().ok());
        match address {
            Some(address) => Ok(Self { child, address }),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                Err(format!("{shown} did not say its address, but {line:?}"))
            }
        }
    }

    /// Starts a program that is told its address, and waits until it listens there.
    pub(crate) fn listening(command: &mut Command, address: SocketAddr, patience: Duration) -> Result<Self, String> {
        let shown = format!("{command:?}");
        let child = command.stdout(Stdio::null()).spawn().map_err(|error| format!("{shown}: {error}"))?;
        let mut process = Self { child, address };
        let step = Duration::from_millis(50);
        for _ in 0..patience.as_millis() / step.as_millis() {
            if TcpStream::connect(address).is_ok() {
                return Ok(process);
            }
            if let Ok(Some(status)) = process.child.try_wait() {
                return Err(format!("{shown} has ended: {status}"));
            }
            thread::sleep(step);
        }
        Err(format!("{shown} does not listen on {address} within {patience:?}"))
    }

    /// Returns the CPU time of the program and of its children so far, in seconds: that of its code and that of the kernel.
    /// None if it cannot be read.
    pub(crate) fn cpu(&self) -> Option<f64> {
        // `USER_HZ` is 100 on every Linux.
        Some(self.family().iter().map(|pid| ticks(*pid)).sum::<Option<u64>>()? as f64 / 100.0)
    }

    /// Returns the memory in use. Pages that a program shares with its children count for each of them.
    pub(crate) fn memory(&self) -> Memory {
        let sum = |field| {
            let kibibytes: Option<u64> = self.family().iter().map(|pid| memory(*pid, field)).sum();
            kibibytes.filter(|sum| *sum > 0).map(|sum| sum as f64 / 1024.0)
        };
        Memory { resident: sum("VmRSS:"), own: sum("RssAnon:") }
    }

    /// Returns the program and all that it has started.
    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = family.get(next).copied() {
            next += 1;
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        family
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Children first: those of a program that is killed would live on. What runs on after `TERM` is killed.
        for pid in self.family().into_iter().rev() {
            let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        for _ in 0..40 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(Duration::from_millis(25));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the clock ticks that a process has used, as columns 14 and 15 of its `stat` say.
fn ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may have spaces in it.
    let mut columns = text.rsplit(')').next()?.split_whitespace().skip(11);
    Some(columns.next()?.parse::<u64>().ok()? + columns.next()?.parse::<u64>().ok()?)
}

/// Returns a line of a process's `status`, in KiB.
fn memory(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

/// Returns the path of a program that is installed. Debian's nginx is in a folder that the `PATH` of users lacks.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&folders).chain([Path::new("/usr/sbin").into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}
