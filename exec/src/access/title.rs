//! Taking secrets out of what the kernel tells of this process.
//!
//! `/proc/<pid>/cmdline` is readable by everybody on the host, `/proc/<pid>/environ` by the same user.
//! Both show the memory that the kernel filled when the program began, so a secret in it is overwritten
//! there, with asterisks, as soon as it was read.
//!
//! Where that memory lies, the kernel tells in `/proc/self/stat`; it is the process's own, and
//! writable. It is written through `/proc/self/mem`, so a wrong address is an error and not a crash.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;

/// Fields of `/proc/self/stat` behind the command's name: begin and end of arguments and environment.
const ARG_START: usize = 45;

/// Overwrites each occurrence of `secret` in the process's arguments and environment, as the kernel shows
/// them. Does nothing for an empty secret.
///
/// # Errors
/// Where `/proc` is not to be had. Then the secret may be seen by other users of the host.
pub fn scrub(secret: &str) -> io::Result<()> {
    if secret.is_empty() {
        return Ok(());
    }
    let [arguments, arguments_end, environment, environment_end] = ranges()?;
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/proc/self/mem")?;
    for (begin, end) in [(arguments, arguments_end), (environment, environment_end)] {
        let length = usize::try_from(end.saturating_sub(begin)).unwrap_or_default();
        let mut bytes = vec![0; length];
        memory.read_exact_at(&mut bytes, begin)?;
        if cover(&mut bytes, secret.as_bytes()) {
            memory.write_all_at(&bytes, begin)?;
        }
    }
    Ok(())
}

/// Overwrites each occurrence; says whether there was one.
fn cover(bytes: &mut [u8], secret: &[u8]) -> bool {
    let mut found = false;
    let mut at = 0;
    while let Some(window) = bytes.get_mut(at..at + secret.len()) {
        if window == secret {
            window.fill(b'*');
            found = true;
            at += secret.len();
        } else {
            at += 1;
        }
    }
    found
}

fn ranges() -> io::Result<[u64; 4]> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The command's name stands in parentheses, and may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_whitespace().skip(ARG_START);
    let mut next = || {
        let field = fields.next().and_then(|field| field.parse().ok());
        field.ok_or_else(|| io::Error::other("/proc/self/stat does not tell where arguments lie"))
    };
    Ok([next()?, next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_is_covered() {
        let mut bytes = b"openduck\0-t\0s3cret\0--token=s3crets3cret\0s3cre".to_vec();
        assert!(cover(&mut bytes, b"s3cret"));
        assert_eq!(bytes, b"openduck\0-t\0******\0--token=************\0s3cre");
        assert!(!cover(&mut bytes, b"s3cret"));
    }

    #[test]
    fn the_kernel_shows_the_scrubbed_arguments() {
        // The test's own name is in its arguments only where it was asked for by name: what is always
        // there is the program.
        let before = fs::read("/proc/self/cmdline").unwrap();
        let program = before.split(|&byte| byte == 0).next().unwrap();
        let secret = std::str::from_utf8(&program[program.len() - 8..]).unwrap();
        scrub(secret).unwrap();
        let after = fs::read("/proc/self/cmdline").unwrap();
        assert_eq!(before.len(), after.len());
        let mut expected = before.clone();
        assert!(cover(&mut expected, secret.as_bytes()));
        assert_eq!(after, expected);
        let shown = String::from_utf8_lossy(&after).into_owned();
        assert!(!shown.contains(secret), "{shown}");
    }
}
