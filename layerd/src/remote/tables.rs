//! Frame tables that were fetched, within a budget.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::{Frame, Table};

/// Bytes of tables that are kept; those that were not used for longest go. Arithmetic: 40 bytes
/// per frame, a million frames, 200 GB of large blocks. What is in the cache needs no table.
pub const BUDGET: usize = 32 << 20;

/// Tables by segment.
#[derive(Default)]
pub struct Tables(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    tables: HashMap<u64, (Arc<Table>, u64)>,
    bytes: usize,
    clock: u64,
}

impl Tables {
    /// A segment's table, if it is here.
    #[must_use]
    pub fn get(&self, part: u64) -> Option<Arc<Table>> {
        let mut kept = self.0.lock();
        kept.clock += 1;
        let clock = kept.clock;
        let (table, used) = kept.tables.get_mut(&part)?;
        *used = clock;
        Some(Arc::clone(table))
    }

    /// Keeps a table.
    pub fn put(&self, part: u64, table: &Arc<Table>) {
        let mut kept = self.0.lock();
        kept.clock += 1;
        let clock = kept.clock;
        if kept
            .tables
            .insert(part, (Arc::clone(table), clock))
            .is_none()
        {
            kept.bytes += size(table);
        }
        while kept.bytes > BUDGET && kept.tables.len() > 1 {
            let oldest = kept.tables.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(part, _)| *part) else {
                break;
            };
            if let Some((table, _)) = kept.tables.remove(&oldest) {
                kept.bytes -= size(&table);
            }
        }
    }
}

fn size(table: &Table) -> usize {
    size_of::<Table>() + table.frames.len() * size_of::<Frame>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::segment::FrameKind;
    use crate::remote::testing::LAYER;

    #[test]
    fn tables_that_were_not_used_go_first() {
        let frame = Frame {
            begin: 0,
            length: 1,
            stored: 0,
            at: 0,
            sum: 0,
            kind: FrameKind::Zeros,
        };
        let table = Arc::new(Table {
            layer: LAYER,
            begin: 0,
            end: 1,
            frames: vec![frame; 100_000],
        });
        let count = (BUDGET / size(&table)) as u64;
        let tables = Tables::default();
        for part in 0..count {
            tables.put(part, &table);
        }
        assert!(tables.get(0).is_some());
        tables.put(count, &table);
        assert!(tables.get(0).is_some() && tables.get(1).is_none());
        assert!(tables.get(count).is_some());
    }
}
