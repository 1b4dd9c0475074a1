//! What a local cluster takes of this machine: memory of its processes and processor time of its pods. Reads
//! /proc and the pods' cgroups only.

use std::fs;
use std::path::{Path, PathBuf};

/// Resident memory in MiB of all processes of the local cluster `name`: the control plane, the node's and all in its
/// pods. A page that several processes share counts once, in parts (PSS).
pub fn resident_mb(name: &str) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let ours = processes.map(|entry| entry.path()).filter(|folder| belongs(name, folder));
    ours.map(|folder| proportional_kb(&read(&folder, "smaps_rollup")) / 1024.0).sum()
}

fn proportional_kb(rollup: &str) -> f64 {
    let kb = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kb.unwrap_or(0.0)
}

/// Processor seconds all pods of the local cluster `name` have taken so far; none where the machine's cgroups do
/// not tell.
pub fn pod_cpu_seconds(name: &str) -> Option<f64> {
    let v1 = PathBuf::from(format!("/sys/fs/cgroup/cpuacct/{}/kubepods/cpuacct.usage", group(name)));
    let v2 = PathBuf::from(format!("/sys/fs/cgroup/{}/kubepods/cpu.stat", group(name)));
    if let Ok(nanoseconds) = fs::read_to_string(v1) {
        return nanoseconds.trim().parse::<f64>().ok().map(|n| n / 1e9);
    }
    let stat = fs::read_to_string(v2).ok()?;
    let micros: f64 = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok())?;
    Some(micros / 1e6)
}

fn group(name: &str) -> String {
    format!("fortia-{name}-0")
}

/// A process that ends while it is read belongs to nobody.
fn belongs(name: &str, process: &Path) -> bool {
    let in_pod = read(process, "cgroup").lines().any(|line| line.contains(&format!("/{}/", group(name))));
    let state = format!("/fortia-cluster/{name}/");
    in_pod || read(process, "cmdline").contains(&state)
}

fn read(process: &Path, file: &str) -> String {
    fs::read_to_string(process.join(file)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_pages_count_in_parts() {
        let rollup = "5-7 ---p 0 0:0 0 [rollup]\nRss:   4096 kB\nPss:   1024 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(proportional_kb(rollup), 1024.0);
    }
}
