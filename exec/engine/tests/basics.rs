//! A first look.
use engine::*;
use std::path::PathBuf;

fn open() -> Instance {
    Instance::open(&InstanceConfig {
        path: None,
        access: Access::ReadWrite,
        memory_bytes: 1 << 30,
        threads: 2,
        temp_directory: PathBuf::from("/tmp"),
        temp_bytes_max: 1 << 30,
        storage_version: None,
        allowed_directories: Vec::new(),
        locked_down: std::env::var_os("LOCKED").is_some(),
    })
    .unwrap()
}

#[test]
fn looks() {
    let mut c = open().connect().unwrap();
    for sql in std::env::var("SQL").unwrap_or("select 1 a, 'x' b".into()).split(';') {
        println!("-- {sql}");
        match c.prepare(sql).and_then(|p| { println!("{p:?} {:?} {:?}", p.properties, p.operators); c.execute(&p, None) }) {
            Err(e) => println!("{e:?}"),
            Ok(mut r) => loop {
                match r.next() {
                    Ok(Some(b)) => println!("{b:?}"),
                    Ok(None) => break,
                    Err(e) => { println!("{e:?}"); break }
                }
            },
        }
    }
}
