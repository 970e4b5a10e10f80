//! The layer stack, drawn: newest on top, each layer standing on the one below it.
//!
//! A layer is used up to the commit that the next one stands on, so a box says where it is cut.

use anyhow::Result;
use clap::Args;
use layerd::catalog::{Database, LayerKind, LayerRow, LayerState};
use layerd::id::{DatabaseId, Lsn, Timestamp};
use serde_json::{Value, json};

use super::Context;
use super::format::{self, count};
use super::output::{Reply, Style};
use super::target::Target;

/// Draw the layers that make up a database, or one state of it
#[derive(Args)]
#[command(after_help = "Example:\n  openduck-fs show mydb@nightly")]
pub(crate) struct Show {
    /// Which state; the newest commit, where none is named
    #[arg(value_name = "DB[@REF]", value_parser = Target::parse)]
    target: Target,
}

impl Show {
    pub(crate) fn run(self, context: &Context) -> Result<Reply> {
        let store = context.store()?;
        let database = store.database(self.target.database())?;
        let (lsn, rows) = store.stack(&database.name, self.target.state())?;
        let owner = |id: DatabaseId| {
            let other = store.catalog().database_by_id(id);
            other.map_or_else(|_| id.to_string(), |other| other.name.to_string())
        };
        let stack = Stack::new(&database, lsn, rows, owner);
        Ok(Reply::new(
            stack.document(),
            stack.draw(Timestamp::now(), context.output.style),
        ))
    }
}

/// The layers of one state, bottom first.
struct Stack {
    database: String,
    lsn: Lsn,
    layers: Vec<Placed>,
}

/// A layer, and how far this state uses it.
struct Placed {
    row: LayerRow,
    /// The last commit that is used; `None` for image layers, which are used whole.
    used_to: Option<Lsn>,
    /// The database that it was written for, where that is another one.
    lent_by: Option<String>,
}

impl Placed {
    /// Whether commits of the layer lie behind the last one that is used.
    fn is_cut(&self) -> bool {
        match (self.used_to, self.row.last_lsn) {
            (Some(used), Some(last)) => used < last,
            _ => false,
        }
    }

    fn bytes(&self) -> Option<u64> {
        self.row.bytes.or(self.row.end)
    }
}

impl Stack {
    fn new(
        database: &Database,
        lsn: Lsn,
        rows: Vec<LayerRow>,
        owner: impl Fn(DatabaseId) -> String,
    ) -> Stack {
        let mut used_to = lsn;
        let mut layers: Vec<Placed> = rows
            .into_iter()
            .rev()
            .map(|row| Placed {
                used_to: (row.kind == LayerKind::Delta).then(|| {
                    let below = row.parent.map_or(Lsn::EMPTY, |parent| parent.lsn);
                    std::mem::replace(&mut used_to, below)
                }),
                lent_by: (row.database != database.id).then(|| owner(row.database)),
                row,
            })
            .collect();
        layers.reverse();
        Stack {
            database: database.name.to_string(),
            lsn,
            layers,
        }
    }

    fn bytes(&self) -> u64 {
        self.layers.iter().filter_map(Placed::bytes).sum()
    }

    /// What is known of the size; an active layer has none yet.
    fn size(&self) -> String {
        let is_growing = self.layers.iter().any(|layer| layer.bytes().is_none());
        match (self.bytes(), is_growing) {
            (0, true) => "growing".to_owned(),
            (bytes, true) => format!("{} and growing", format::size(bytes)),
            (bytes, false) => format::size(bytes),
        }
    }

    fn document(&self) -> Value {
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                let row = &layer.row;
                json!({
                    "id": row.id,
                    "kind": row.kind,
                    "state": row.state,
                    "first_lsn": (row.kind == LayerKind::Delta).then_some(row.first_lsn),
                    "last_lsn": row.last_lsn,
                    "used_to_lsn": layer.used_to,
                    "bytes": layer.bytes(),
                    "created": format::exact_time(row.created),
                    "lent_by": layer.lent_by,
                    "images": row.images,
                })
            })
            .collect();
        json!({
            "database": self.database,
            "lsn": self.lsn,
            "bytes": self.bytes(),
            "layers": layers,
        })
    }

    fn draw(&self, now: Timestamp, style: Style) -> String {
        let title = format!(
            "{} at lsn {}: {}, {}",
            self.database,
            self.lsn,
            count(self.layers.len() as u64, "layer"),
            self.size(),
        );
        if self.layers.is_empty() {
            return format!("{} (empty: no commit yet)", style.bold(&title));
        }
        let boxes: Vec<[Line; 2]> = self
            .layers
            .iter()
            .map(|layer| describe(layer, now))
            .collect();
        let inner = boxes.iter().flatten().map(Line::width).max().unwrap_or(0);
        let bar = "─".repeat(inner + 2);
        let mut text = format!("{}\n  ┌{bar}┐", style.bold(&title));
        for (index, lines) in boxes.iter().rev().enumerate() {
            if index > 0 {
                text.push_str(&format!("\n  ├{bar}┤"));
            }
            for line in lines {
                text.push_str(&format!("\n  │ {} │", line.render(inner, style)));
            }
        }
        text.push_str(&format!("\n  └{bar}┘"));
        text
    }
}

/// A line of a box: some words on the left, some on the right, each with its colour.
struct Line {
    left: Vec<(String, Paint)>,
    right: (String, Paint),
}

#[derive(Clone, Copy)]
enum Paint {
    Plain,
    Dim,
    Image,
    Active,
    Cut,
}

impl Line {
    /// What it needs, with two spaces in the middle.
    fn width(&self) -> usize {
        let left: usize = self
            .left
            .iter()
            .map(|(words, _)| words.chars().count())
            .sum();
        left + 2 + self.right.0.chars().count()
    }

    fn render(&self, width: usize, style: Style) -> String {
        let paint = |(words, paint): &(String, Paint)| match paint {
            Paint::Plain => words.clone(),
            Paint::Dim => style.dim(words),
            Paint::Image => style.cyan(words),
            Paint::Active => style.green(words),
            Paint::Cut => style.yellow(words),
        };
        let left: String = self.left.iter().map(paint).collect();
        let gap = " ".repeat(width + 2 - self.width());
        format!("{left}{gap}{}", paint(&self.right))
    }
}

fn describe(layer: &Placed, now: Timestamp) -> [Line; 2] {
    let row = &layer.row;
    let (kind, kind_paint) = match row.kind {
        LayerKind::Delta => ("delta", Paint::Plain),
        LayerKind::Image => ("image", Paint::Image),
    };
    let (state, state_paint) = match row.state {
        LayerState::Active => ("active", Paint::Active),
        LayerState::Rotated => ("rotated", Paint::Plain),
        LayerState::Sealed => ("sealed", Paint::Dim),
    };
    let mut name = vec![
        (kind.to_owned(), kind_paint),
        (format!("  {}", row.id), Paint::Plain),
    ];
    if let Some(lender) = &layer.lent_by {
        name.push((format!("  of {lender}"), Paint::Dim));
    }
    let size = layer.bytes().map_or("growing".to_owned(), format::size);
    let age = format::age(now, row.last_time.unwrap_or(row.created));
    [
        Line {
            left: name,
            right: (state.to_owned(), state_paint),
        },
        Line {
            left: commits(layer),
            right: (format!("{size}, {age}"), Paint::Plain),
        },
    ]
}

/// Which commits a layer holds, and where this state stops using them.
fn commits(layer: &Placed) -> Vec<(String, Paint)> {
    let row = &layer.row;
    let Some(used_to) = layer.used_to else {
        return vec![("one whole file".to_owned(), Paint::Dim)];
    };
    let range = match row.last_lsn {
        Some(last) if last == row.first_lsn => format!("lsn {last}"),
        Some(last) => format!("lsn {} to {last}", row.first_lsn),
        None => format!("lsn {} and on", row.first_lsn),
    };
    let mut words = vec![(range, Paint::Plain)];
    if layer.is_cut() {
        words.push((format!("  cut after {used_to}"), Paint::Cut));
    }
    words
}

#[cfg(test)]
mod tests {
    use layerd::catalog::{Head, StatePoint};
    use layerd::id::{Epoch, LayerId};

    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn id(random: u64) -> LayerId {
        LayerId {
            epoch: Epoch(random),
            random,
        }
    }

    fn image(random: u64, bytes: u64) -> LayerRow {
        LayerRow {
            kind: LayerKind::Image,
            state: LayerState::Sealed,
            end: Some(bytes),
            bytes: Some(bytes),
            ..LayerRow::begun(id(random), DatabaseId(1), None, Lsn::EMPTY, Timestamp(0))
        }
    }

    fn delta(random: u64, first: u64, last: Option<u64>, parent: Option<(u64, u64)>) -> LayerRow {
        LayerRow {
            kind: LayerKind::Delta,
            state: last.map_or(LayerState::Active, |_| LayerState::Sealed),
            parent: parent.map(|(layer, lsn)| StatePoint {
                layer: id(layer),
                lsn: Lsn(lsn),
            }),
            first_lsn: Lsn(first),
            last_lsn: last.map(Lsn),
            last_time: last.map(|_| Timestamp(MINUTE)),
            end: last.map(|_| 2048),
            bytes: last.map(|_| 2048),
            ..image(random, 0)
        }
    }

    /// An image, a delta on it of which commits up to 30 are used, a delta lent by another
    /// database, and an active one.
    fn stack() -> Stack {
        let database = Database {
            id: DatabaseId(1),
            name: "mydb".parse().unwrap(),
            created: Timestamp(0),
            dropped: None,
            retention_s: 0,
            head: Head {
                point: None,
                time: Timestamp(0),
                written_bytes: 0,
            },
            base: None,
            epoch: Epoch(3),
            generation: 0,
        };
        let lent = LayerRow {
            database: DatabaseId(2),
            ..delta(3, 31, Some(31), Some((2, 30)))
        };
        let rows = vec![
            image(1, 1 << 30),
            delta(2, 11, Some(35), None),
            lent,
            delta(4, 32, None, Some((3, 31))),
        ];
        Stack::new(&database, Lsn(42), rows, |_| "parent".into())
    }

    #[test]
    fn each_layer_is_used_up_to_where_the_next_one_stands() {
        let used: Vec<Option<u64>> = stack()
            .layers
            .iter()
            .map(|layer| layer.used_to.map(|lsn| lsn.0))
            .collect();
        assert_eq!(used, [None, Some(30), Some(31), Some(42)]);
        let document = stack().document();
        assert_eq!(document["layers"][1]["used_to_lsn"], 30);
        assert_eq!(document["layers"][2]["lent_by"], "parent");
        assert_eq!(document["bytes"], (1u64 << 30) + 4096);
    }

    #[test]
    fn the_picture_stands_on_its_oldest_layer() {
        let shown = stack().draw(Timestamp(3 * MINUTE), Style::default());
        let picture = "\
mydb at lsn 42: 4 layers, 1.0 GiB and growing
  ┌─────────────────────────────────────────────────────┐
  │ delta  00000004-0000000000000004             active │
  │ lsn 32 and on                        growing, 3 min │
  ├─────────────────────────────────────────────────────┤
  │ delta  00000003-0000000000000003  of parent  sealed │
  │ lsn 31                               2.0 KiB, 2 min │
  ├─────────────────────────────────────────────────────┤
  │ delta  00000002-0000000000000002             sealed │
  │ lsn 11 to 35  cut after 30           2.0 KiB, 2 min │
  ├─────────────────────────────────────────────────────┤
  │ image  00000001-0000000000000001             sealed │
  │ one whole file                       1.0 GiB, 3 min │
  └─────────────────────────────────────────────────────┘";
        assert_eq!(shown, picture);
    }

    #[test]
    fn colours_do_not_shift_the_frame() {
        let plain = stack().draw(Timestamp(0), Style::default());
        let mut colored = stack().draw(Timestamp(0), Style::colored());
        assert!(colored.contains("\x1b["));
        for code in ["0", "1", "2", "32", "33", "36"] {
            colored = colored.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(colored, plain);
    }

    #[test]
    fn an_empty_database_is_said_to_be_empty() {
        let empty = Stack {
            database: "new".into(),
            lsn: Lsn(0),
            layers: vec![],
        };
        assert_eq!(
            empty.draw(Timestamp(0), Style::default()),
            "new at lsn 0: 0 layers, 0 B (empty: no commit yet)"
        );
    }
}
