//! A process killed while it writes leaves whole files.

#![cfg(unix)]

use adamant::files::write_atomically;
use std::env;
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

const FILE: &str = "ADAMANT_TEST_KILLED_FILE";
const LENGTH: usize = 1 << 20;
const BEFORE: u8 = 255;

/// Not a test of its own: the process that `a_kill_at_any_moment_leaves_a_whole_file` starts and kills. Writes files
/// of one repeated byte, each time another.
#[test]
fn writer() {
    let Some(path) = env::var_os(FILE) else { return };
    for byte in (0..BEFORE).cycle() {
        write_atomically(&path, &vec![byte; LENGTH]).unwrap();
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.safetensors");
    for round in 0..20 {
        write_atomically(&path, &vec![BEFORE; LENGTH]).unwrap();
        let mut writer = Command::new(env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(FILE, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Kill it at another moment each round, once it has got going.
        let start = Instant::now();
        while fs::read(&path).unwrap()[0] == BEFORE {
            assert!(start.elapsed() < Duration::from_secs(60), "the writer never wrote");
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_micros(370 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), LENGTH, "round {round}");
        assert!(bytes.iter().all(|&byte| byte == bytes[0]), "round {round} mixes two files");
    }
}
