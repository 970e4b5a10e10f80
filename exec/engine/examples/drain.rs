//! How fast results leave: `drain DATABASE [THREADS [SQL]]`, by default TPC-H's lineitem.
//!
//! Beside it the same query with its rows counted inside DuckDB, which is what producing them costs;
//! and small statements, prepared first or started at once.

use std::error::Error;
use std::time::Instant;

use engine::{Access, Connection, Instance, InstanceConfig, Start};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .ok_or("usage: drain DATABASE [THREADS [SQL]]")?;
    let threads = arguments.next().unwrap_or("2".to_owned()).parse()?;
    let sql = arguments.next().unwrap_or("FROM lineitem".to_owned());
    let instance = Instance::open(&InstanceConfig {
        path: Some(path.into()),
        access: Access::ReadOnly,
        memory_bytes: 4 << 30,
        threads,
        temp_directory: std::env::temp_dir().join("openduck-drain.spill"),
        temp_bytes_max: 1 << 30,
        storage_version: None,
        allowed_directories: Vec::new(),
        locked_down: false,
    })?;
    let mut connection = instance.connect()?;
    for _ in 0..4 {
        drain(&mut connection, &sql)?;
    }
    for sql in ["SELECT 42", "SELECT * FROM nation WHERE n_nationkey = 7"] {
        small(&mut connection, sql)?;
    }
    Ok(())
}

fn drain(connection: &mut Connection, sql: &str) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut running = connection.start(sql, None, Start::default())?;
    let (mut rows, mut bytes, mut batches) = (0, 0, 0);
    while let Some(batch) = running.next()? {
        rows += batch.num_rows();
        bytes += batch.get_array_memory_size();
        batches += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    connection.run(&format!("SELECT sum(hash(COLUMNS(*))) FROM ({sql})"))?;
    println!(
        "{rows} rows in {seconds:.3} s: {:.2} M/s, {:.0} MB/s in {batches} batches; hashed in DuckDB: {:.3} s",
        rows as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1e6,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn small(connection: &mut Connection, sql: &str) -> Result<(), Box<dyn Error>> {
    let (mut prepared, mut started) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let begun = Instant::now();
        let statement = connection.prepare(sql)?;
        let mut running = connection.execute(&statement, None)?;
        while running.next()?.is_some() {}
        prepared.push(begun.elapsed());
        let begun = Instant::now();
        connection.run(sql)?;
        started.push(begun.elapsed());
    }
    prepared.sort();
    started.sort();
    println!(
        "{sql}: median {:?} prepared and executed, {:?} started at once",
        prepared[500], started[500]
    );
    Ok(())
}
