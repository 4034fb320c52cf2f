//! The memory for requests' bodies: as much as the settings say, or a part of what the relay may have.
//!
//! A body is kept so that its call can be sent again. A relay in a container is killed when all of it is more than the
//! container may have, so that the default is a part of that, and not of the machine's memory.

use std::{fmt, fs};

use tower_gemini::replay::{ReplayLayer, ReplayMemory};

use crate::config::{
    toml::Section,
    values::{size, written_size},
};

/// The memory for bodies is this part of what the relay may have: answers, connections and a body's pieces, which are
/// joined once it is whole, need memory as well.
const PART: usize = 4;

/// The settings of the memory for bodies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    max: usize,
    max_per_caller: Option<usize>,
    origin: Origin,
}

/// The source of the cap for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Settings,
    /// A part of the container's limit.
    Container(usize),
    /// A part of the machine's memory, or the default.
    Machine,
}

impl Memory {
    /// Reads the settings from the top level of the file. `max_body` is the most bytes of one body.
    pub(crate) fn read(file: &mut Section<'_>, max_body: usize) -> Self {
        let set = file.get("max_kept", size);
        let max_per_caller = file.get("max_kept_per_caller", size);
        let (max, origin) = match set {
            Some(max) => (max, Origin::Settings),
            None => default_of(container_limit(&read_file), machine_memory(&read_file)),
        };
        let memory = Self { max, max_per_caller, origin };
        if memory.most_of_one() < max_body {
            let [share, max_body] = [memory.most_of_one(), max_body].map(written_size);
            file.remark(format!(
                "a caller keeps at most {share} (max_kept_per_caller, or half of max_kept), and a request may have {max_body} \
                 (max_body): larger ones than {share} have one attempt, without retry or fallback"
            ));
        }
        memory
    }

    /// Returns the most bytes that a caller keeps while there is no other.
    fn most_of_one(&self) -> usize {
        self.max_per_caller.unwrap_or(usize::MAX).min(self.max / 2)
    }

    /// Creates the memory.
    pub(crate) fn create(&self) -> ReplayMemory {
        let memory = ReplayMemory::new(self.max);
        self.apply(&memory);
        memory
    }

    /// Puts the caps in force in a memory that goes on.
    pub(crate) fn apply(&self, memory: &ReplayMemory) {
        memory.resize(self.max, self.max_per_caller);
    }

    /// Describes the memory in a line, as the layers are described.
    pub(crate) fn describe(&self) -> String {
        format!("{:<16}{self}", "kept bodies")
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "up to {} in all", written_size(self.max))?;
        match self.origin {
            Origin::Settings => {}
            Origin::Container(limit) => write!(f, ", a quarter of the container's {}", written_size(limit))?,
            Origin::Machine => f.write_str(", by the machine's memory")?,
        }
        write!(f, ", and of a caller up to {}", written_size(self.most_of_one()))
    }
}

fn default_of(container: Option<usize>, machine: Option<usize>) -> (usize, Origin) {
    // cgroup v1 writes a number near 2^63 where there is no limit.
    let container = container.filter(|limit| machine.is_none_or(|machine| *limit < machine));
    match (container, machine) {
        (Some(limit), _) => (limit / PART, Origin::Container(limit)),
        (None, Some(machine)) => (ReplayLayer::MAX_TOTAL.min(machine / PART), Origin::Machine),
        (None, None) => (ReplayLayer::MAX_TOTAL, Origin::Machine),
    }
}

// === limits of the system ===

/// Reads a whole file of the system, where there is one.
fn read_file(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// Returns the lowest limit for memory of the control groups in which the relay runs.
fn container_limit(read: &dyn Fn(&str) -> Option<String>) -> Option<usize> {
    let groups = read("/proc/self/cgroup")?;
    // Lines of `number:controllers:path`; version 2 has the number 0 and no controllers.
    let limits = groups.lines().filter_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let of_memory = controllers.split(',').any(|controller| controller == "memory");
        match (number, of_memory) {
            ("0", _) if controllers.is_empty() => lowest("/sys/fs/cgroup", path, "memory.max", read),
            (_, true) => lowest("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", read),
            _ => None,
        }
    });
    limits.min()
}

/// Returns the lowest limit of a group and of all around it. Of groups outside of the container nothing may be there to
/// be read; its own then stands at the root.
fn lowest(root: &str, path: &str, file: &str, read: &dyn Fn(&str) -> Option<String>) -> Option<usize> {
    let path = path.trim_matches('/');
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len(), 0]);
    let limits = ends.filter_map(|end| {
        let group = &path[..end];
        let between = if group.is_empty() { "" } else { "/" };
        // "max" is no number, and no limit.
        read(&format!("{root}{between}{group}/{file}"))?.trim().parse().ok()
    });
    limits.min()
}

/// Returns the memory of the machine.
fn machine_memory(read: &dyn Fn(&str) -> Option<String>) -> Option<usize> {
    let info = read("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: usize = 1 << 30;
    const INFO: (&str, &str) = ("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\n");

    /// Returns the default on a machine with these files.
    fn default_with(files: &[(&str, &str)]) -> (usize, Origin) {
        let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
        default_of(container_limit(&read), machine_memory(&read))
    }

    #[test]
    fn by_default_a_quarter_of_the_containers_limit_is_for_bodies() {
        let quarter = |limit: usize| (limit / 4, Origin::Container(limit));
        let v2 = |group: &'static str| ("/proc/self/cgroup", group);
        // In a container of its own namespace, in a unit of systemd, and in one whose slice has less.
        let root = [INFO, v2("0::/\n"), ("/sys/fs/cgroup/memory.max", "536870912\n")];
        assert_eq!(default_with(&root), quarter(GIB / 2));
        let unit = "/sys/fs/cgroup/system.slice/relay.service/memory.max";
        let unit = [INFO, v2("0::/system.slice/relay.service\n"), (unit, "1073741824\n")];
        assert_eq!(default_with(&unit), quarter(GIB));
        let slice = ("/sys/fs/cgroup/system.slice/memory.max", "268435456\n");
        assert_eq!(default_with(&[&unit[..], &[slice]].concat()), quarter(GIB / 4));
        // Version 1; its group's folder may be outside of the container.
        let v1 = ("/proc/self/cgroup", "9:name=systemd:/x\n4:cpu,memory:/docker/abc\n0::/\n");
        let outside = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
        assert_eq!(default_with(&[INFO, v1, outside]), quarter(GIB / 2));
        let own = ("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "268435456\n");
        let none = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(default_with(&[INFO, v1, own, none]), quarter(GIB / 4));
    }

    #[test]
    fn without_a_limit_the_machines_memory_counts_up_to_the_default() {
        let small = ("/proc/meminfo", "MemTotal:  1048576 kB\n");
        let group = ("/proc/self/cgroup", "0::/a/b\n");
        let unlimited = ("/sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(default_with(&[INFO, group, unlimited]), (ReplayLayer::MAX_TOTAL, Origin::Machine));
        assert_eq!(default_with(&[small, group]), (GIB / 4, Origin::Machine));
        let v1 = ("/proc/self/cgroup", "4:memory:/\n");
        let none = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(default_with(&[INFO, v1, none]), (ReplayLayer::MAX_TOTAL, Origin::Machine));
        assert_eq!(default_with(&[]), (ReplayLayer::MAX_TOTAL, Origin::Machine));
        for broken in ["", "x", "4:memory", "0::", ":::"] {
            assert_eq!(default_with(&[INFO, ("/proc/self/cgroup", broken)]).1, Origin::Machine, "{broken:?}");
        }
    }

    #[test]
    fn the_line_says_where_the_size_comes_from() {
        let memory = |max, max_per_caller, origin| Memory { max, max_per_caller, origin }.to_string();
        assert_eq!(
            memory(GIB / 8, None, Origin::Container(GIB / 2)),
            "up to 128 MiB in all, a quarter of the container's 512 MiB, and of a caller up to 64 MiB"
        );
        assert_eq!(
            memory(GIB, Some(100_000_000), Origin::Settings),
            "up to 1 GiB in all, and of a caller up to 95.4 MiB"
        );
    }
}
