//! Who comes when, and what befalls them.

use std::time::Duration;

use layerd::id::Timestamp;
use layerd::machine::world::Process;

use crate::crash_disk::CrashDisk;
use crate::setting::{HOSTS, Setting};
use crate::{care, judge, reader, writer};

/// Processes of a host at the same time.
const PROCESSES_MAX: usize = 3;

type Part = fn(&Setting, usize);

pub fn run(setting: &Setting) {
    let world = setting.world();
    let store = setting.open(HOSTS).unwrap();
    setting.0.faults.pause(|| {
        store.create(&"db".parse().unwrap()).unwrap();
    });
    drop(store);
    start(setting, 0, "writer", writer::run);
    for _ in 0..10 + world.below(25) {
        setting.rest([1, 5, 20][world.below(3) as usize]);
        let host = world.below(HOSTS as u64) as usize;
        match world.below(24) {
            0..8 => start(setting, host, "writer", writer::run),
            8..11 => start(setting, host, "reader", reader::run),
            11..14 => start(setting, host, "care", care::run),
            14..16 => start(setting, host, "hand", care::by_hand),
            16..18 => kill_one(setting, host),
            18 => {
                if let Some(process) = one_of(setting, host) {
                    let time = time(setting);
                    setting.note(format_args!("a process of host {host} stops for {time:?}"));
                    world.stop(process, time);
                }
            }
            19 => {
                let time = time(setting);
                setting.note(format_args!("host {host} freezes for {time:?}"));
                let machine = &setting.0.hosts[host];
                machine.state.lock().was_frozen = true;
                world.freeze(machine.host, time);
            }
            20 => power_loss(setting, host),
            21 => lose(setting, host),
            22 => {
                let until = later(setting, 100);
                setting.note(format_args!("the store is away until {until}"));
                setting.0.faults.store_away(until);
            }
            _ => {
                let until = later(setting, 25);
                setting.note(format_args!("the catalog is away until {until}"));
                setting.0.faults.catalog_away(until);
            }
        }
    }
    setting.0.faults.end(world.now());
    setting.note(format_args!("nothing goes wrong from here on"));
    for host in 0..HOSTS {
        let processes = setting.0.hosts[host].state.lock().processes.clone();
        for process in processes {
            if world.one_in(3) {
                world.kill(process);
            } else {
                world.wait_for(process);
            }
        }
    }
    judge::run(setting);
}

fn start(setting: &Setting, host: usize, name: &str, part: Part) {
    let world = setting.world();
    let machine = &setting.0.hosts[host];
    let process = {
        let mut state = machine.state.lock();
        state.processes.retain(|process| world.is_alive(*process));
        if state.processes.len() >= PROCESSES_MAX {
            return;
        }
        let process = world.process(machine.host);
        state.processes.push(process);
        process
    };
    let n = setting
        .0
        .started
        .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let setting = setting.clone();
    let name = format!("{name}{n}@{host}");
    world.spawn(process, &name, move || part(&setting, host));
}

fn one_of(setting: &Setting, host: usize) -> Option<Process> {
    let world = setting.world();
    let mut state = setting.0.hosts[host].state.lock();
    state.processes.retain(|process| world.is_alive(*process));
    let count = state.processes.len() as u64;
    (count > 0).then(|| state.processes[world.below(count) as usize])
}

fn kill_one(setting: &Setting, host: usize) {
    if let Some(process) = one_of(setting, host) {
        setting.note(format_args!("a process of host {host} is killed"));
        setting.world().kill(process);
    }
}

fn kill_all(setting: &Setting, host: usize) {
    let processes = std::mem::take(&mut setting.0.hosts[host].state.lock().processes);
    for process in processes {
        setting.world().kill(process);
    }
}

/// Mostly within a lease, sometimes past it, now and then past a pin.
fn time(setting: &Setting) -> Duration {
    let world = setting.world();
    let seconds = match world.below(10) {
        0 => {
            setting
                .0
                .pins_may_end
                .store(true, std::sync::atomic::Ordering::SeqCst);
            700
        }
        1..6 => world.below(40),
        _ => world.below(10),
    };
    Duration::from_secs(seconds)
}

fn later(setting: &Setting, seconds: u64) -> Timestamp {
    let world = setting.world();
    world.now().plus_seconds(world.below(seconds).cast_signed())
}

/// All processes of a host end, and of what it had not synced chance decides.
fn power_loss(setting: &Setting, host: usize) {
    let world = setting.world();
    if world.one_in(2) {
        // Its disk is the first to go.
        let disk = setting.0.hosts[host].state.lock().disk.clone();
        disk.stop_after(world.below(30) as u32);
        setting.rest(3);
    }
    setting.note(format_args!("host {host} loses its power"));
    kill_all(setting, host);
    let mut state = setting.0.hosts[host].state.lock();
    state.disk.crash(|| !world.one_in(3));
    state.disk = CrashDisk::new();
    let home = setting.home(state.home);
    // Head words are mapped and never synced; the cache is not synced either.
    for path in files(&home.join("heads")) {
        if world.one_in(2) {
            std::fs::remove_file(path).unwrap();
        }
    }
    for path in files(&home.join("cache")) {
        let length = path.metadata().unwrap().len();
        if length > 0 && path.extension().is_some_and(|end| end == "data") && world.one_in(2) {
            use std::os::unix::fs::FileExt;
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            let at = world.below(length) / 4096 * 4096;
            let end = length.min(at + 4096);
            file.write_all_at(&vec![0; (end - at) as usize], at)
                .unwrap();
        }
    }
}

/// A directory's files, in the order of their names.
fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A machine burns; another one takes its place, with an empty disk.
fn lose(setting: &Setting, host: usize) {
    setting.note(format_args!("host {host} is lost with its disk"));
    kill_all(setting, host);
    let mut state = setting.0.hosts[host].state.lock();
    let _ = std::fs::remove_dir_all(setting.home(state.home));
    state.home += HOSTS + 1;
    state.disk = CrashDisk::new();
}
