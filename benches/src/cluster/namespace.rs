//! A network and process namespace of the run's own, where the machine allows it: loopback carries nothing but the
//! clusters' traffic, no port is anyone else's, and whatever was started ends with the run.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Says that the run is inside already.
const INSIDE: &str = "CLUSTER_LOAD_INSIDE";
const UNSHARE: [&str; 5] = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Whether this process is inside.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Becomes the same program inside of namespaces. Returns only when that is not possible, with the reason.
pub fn enter() -> String {
    let probe = Command::new("unshare")
        .args(UNSHARE)
        .args(["ip", "link", "set", "lo", "up"])
        .stderr(Stdio::null())
        .status();
    match probe {
        Ok(status) if status.success() => {}
        Ok(_) => return "unshare is not allowed here".to_owned(),
        Err(error) => return format!("unshare: {error}"),
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return format!("the program's own path: {error}"),
    };
    let error = Command::new("unshare")
        .args(UNSHARE)
        .args(["sh", "-c", r#"ip link set lo up && exec "$0" "$@""#])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    format!("unshare: {error}")
}

/// Bytes that loopback has carried, with IP and Ethernet headers.
pub fn loopback_bytes() -> io::Result<u64> {
    let table = std::fs::read_to_string("/proc/net/dev")?;
    transmitted(&table)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no loopback in /proc/net/dev"))
}

/// The ninth number behind `lo:` is the bytes transmitted.
fn transmitted(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    line.split_whitespace().nth(8)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_transmitted_are_read_from_the_kernels_table() {
        let table = "Inter-|   Receive                |  Transmit\n face |bytes packets errs drop fifo frame compressed \
                     multicast|bytes packets\n    lo:    1 2 3 4 5 6 7 8 900 10 0 0 0 0 0 0\n  eth0: 7 0";
        assert_eq!(transmitted(table), Some(900));
        assert_eq!(transmitted("  eth0: 1 2"), None);
        loopback_bytes().unwrap();
    }
}
