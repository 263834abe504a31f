//! What TCP connections between processes have carried, as the kernel counts it (`ss`): payload bytes, TLS included,
//! without TCP and IP headers.

use std::process::Command;

use crate::load::Error;

/// One end of an established connection.
#[derive(Debug, PartialEq)]
struct End {
    local: u16,
    remote: u16,
    process: u32,
    sent: u64,
}

/// Bytes that the process `from` has sent on its connections with the process `to`.
pub fn sent(from: u32, to: u32) -> Result<u64, Error> {
    let output = Command::new("ss").args(["-tinHpO", "state", "established"]).output();
    let output = output.map_err(|error| format!("ss (iproute2): {error}"))?;
    if !output.status.success() {
        return Err(format!("ss: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let table = String::from_utf8(output.stdout)?;
    Ok(between(&table.lines().filter_map(end).collect::<Vec<_>>(), from, to))
}

fn between(ends: &[End], from: u32, to: u32) -> u64 {
    let meets = |end: &&End| {
        let other = |other: &End| (other.local, other.remote, other.process) == (end.remote, end.local, to);
        end.process == from && ends.iter().any(other)
    };
    ends.iter().filter(meets).map(|end| end.sent).sum()
}

/// Reads a line of `ss -O`: addresses, `users:(("name",pid=1,fd=2))`, and `bytes_sent:3` where there were any.
fn end(line: &str) -> Option<End> {
    let port = |address: &str| address.rsplit_once(':')?.1.parse().ok();
    let mut addresses = line.split_whitespace().filter(|word| word.contains(':') && port(word).is_some());
    let number = |key: &str| {
        let rest = line.split_once(key)?.1;
        rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse::<u64>().ok()
    };
    Some(End {
        local: port(addresses.next()?)?,
        remote: port(addresses.next()?)?,
        process: number("pid=")? as u32,
        sent: number("bytes_sent:").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_is_sent_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.write_all(&[1; 1000]).unwrap();
        match sent(std::process::id(), std::process::id()) {
            // Other tests of this process may have connections as well.
            Ok(bytes) => assert!(bytes >= 1000, "{bytes}"),
            Err(error) => eprintln!("SKIPPED: {error}"),
        }
        drop(far);
    }

    #[test]
    fn ends_are_read_and_matched() {
        let line = r#"0 0 127.0.0.1:4400 127.0.0.1:5000 users:(("sensorium",pid=7,fd=9)) bbr wscale:10,10 bytes_sent:100 x"#;
        let there = end(line).unwrap();
        assert_eq!(there, End { local: 4400, remote: 5000, process: 7, sent: 100 });
        let back = r#"0 0 127.0.0.1:5000 127.0.0.1:4400 users:(("sensorium",pid=8,fd=9)) bbr wscale:10,10"#;
        let ends = [there, end(back).unwrap(), End { local: 1, remote: 2, process: 7, sent: 9 }];
        assert_eq!((between(&ends, 7, 8), between(&ends, 8, 7), between(&ends, 7, 9)), (100, 0, 0));
        assert_eq!(end("garbage"), None);
    }
}
