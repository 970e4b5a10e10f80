//! Claims about segments, and the garbage that is left of them.

#![allow(
    clippy::unwrap_used,
    reason = "a call that fails is a claim that fails"
)]

use std::ops::RangeInclusive;
use std::slice::from_ref;
use std::time::Duration;

use super::Harness;
use super::fixture::*;
use crate::catalog::{CatalogError, Head, LayerRow, LayerState, Result, Segment};
use crate::id::{Epoch, LayerId, Lsn};

const NOW: Duration = Duration::ZERO;

/// Publishes a commit of the layer, with a segment.
fn publish(a: &Writing<'_>, layer: LayerId, lsn: u64, segment: &Segment) -> Result<()> {
    a.catalog
        .publish(a.id, a.epoch, &head(layer, lsn), Some(segment))
}

/// An active layer whose commits 1 to 3 are in three segments.
fn three(a: &Writing<'_>) -> (LayerId, Vec<Segment>) {
    let layer = a.active(1, None);
    let segments = vec![
        segment(0..5000, 1..=1),
        segment(4096..8192, 2..=2),
        segment(8192..written(3), 3..=3),
    ];
    for (lsn, segment) in (1..).zip(&segments) {
        publish(a, layer, lsn, segment).unwrap();
    }
    (layer, segments)
}

/// The same, rotated.
fn rotated(a: &Writing<'_>) -> (LayerId, Vec<Segment>) {
    let (layer, segments) = three(a);
    a.catalog
        .rotate(a.id, a.epoch, &rotation(layer, 1..=3), &head(layer, 3))
        .unwrap();
    (layer, segments)
}

/// A row of a sealed layer that is in two segments.
fn sealed_row(a: &Writing<'_>, commits: RangeInclusive<u64>) -> LayerRow {
    let row = a.sealed_row(commits.clone(), None);
    LayerRow {
        segments: vec![
            segment(0..5000, commits),
            segment(4096..row.bytes.unwrap(), NONE),
        ],
        ..row
    }
}

fn assert_conflict<T: std::fmt::Debug>(result: Result<T>, about: &str) {
    match result {
        Err(CatalogError::Conflict(what)) => assert!(what.contains(about), "{what}"),
        other => panic!("{other:?} is no conflict about {about:?}"),
    }
}

pub(super) fn a_published_segment_is_in_its_layers_row(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, segments) = three(&a);
    let other = harness.connect();
    let chain = other.chain(a.id, Some(at(layer, 3))).unwrap();
    let pinned = other.pin_chain(a.id, Some(at(layer, 2)), 7, &holder("reader"), TTL);
    for row in [
        a.layer(layer),
        other.layers(a.id).unwrap().remove(0),
        other.find_lsn(a.id, Lsn(2)).unwrap().unwrap(),
        chain.layers[0].clone(),
        pinned.unwrap().layers[0].clone(),
    ] {
        assert_eq!(row.segments, segments);
    }
    assert_eq!(a.head(), Some(at(layer, 3)));
}

pub(super) fn published_segments_go_on_where_the_last_one_ended(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    assert_conflict(
        publish(&a, layer, 1, &segment(4096..5000, 1..=1)),
        "go on at 0",
    );
    publish(&a, layer, 1, &segment(0..5000, 1..=1)).unwrap();
    for begin in [0, 5000, 8192] {
        let refused = publish(&a, layer, 2, &segment(begin..9000, 2..=2));
        assert_conflict(refused, "go on at 4096");
    }
    for end in [4097, 5000] {
        let refused = publish(&a, layer, 2, &segment(4096..end, 2..=2));
        assert_conflict(refused, "holds nothing");
    }
    publish(&a, layer, 2, &segment(4096..8192, 2..=2)).unwrap();
    assert_conflict(
        publish(&a, layer, 3, &segment(4096..9000, 3..=3)),
        "go on at 8192",
    );
    publish(&a, layer, 3, &segment(8192..9000, 3..=3)).unwrap();
    assert_eq!(a.layer(layer).segments.len(), 3);
    let unnamed = Segment {
        key: String::new(),
        ..segment(8192..9999, 4..=4)
    };
    assert_conflict(publish(&a, layer, 4, &unnamed), "no key");
    let too_long = Segment {
        tail: 10_000,
        ..segment(8192..9999, 4..=4)
    };
    assert_conflict(publish(&a, layer, 4, &too_long), "tail");
}

pub(super) fn small_segments_share_a_page(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    let ends = [100, 4095, 4096, 4097, 9000];
    let segments: Vec<Segment> = [0, 0, 0, 4096, 4096]
        .into_iter()
        .zip(ends)
        .map(|(begin, end)| segment(begin..end, NONE))
        .collect();
    for segment in &segments {
        publish(&a, layer, 1, segment).unwrap();
    }
    assert_eq!(a.layer(layer).segments, segments);
}

pub(super) fn a_refused_segment_moves_no_head(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, segments) = three(&a);
    let gap = segment(written(4)..written(5), 4..=4);
    assert_conflict(publish(&a, layer, 4, &gap), "go on at");
    assert_eq!(
        (a.head(), a.layer(layer).segments),
        (Some(at(layer, 3)), segments)
    );
}

pub(super) fn a_refused_head_adds_no_segment(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, segments) = three(&a);
    let next = segment(written(3)..written(4), 4..=4);
    assert_conflict(publish(&a, layer, 2, &next), "can't go back");
    assert_eq!(
        (a.head(), a.layer(layer).segments),
        (Some(at(layer, 3)), segments)
    );
}

pub(super) fn a_segment_that_is_published_again_is_there_once(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, segments) = three(&a);
    publish(&a, layer, 3, &segments[2]).unwrap();
    catalog
        .add_segment(a.id, a.epoch, layer, &segments[2])
        .unwrap();
    assert_conflict(publish(&a, layer, 3, &segments[1]), "go on at");
    let other = Segment {
        bytes: segments[2].bytes + 1,
        ..segments[2].clone()
    };
    assert_conflict(publish(&a, layer, 3, &other), "go on at");
    assert_eq!(a.layer(layer).segments, segments);
}

pub(super) fn a_segment_needs_a_head_in_a_layer_of_its_database(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let empty = Head {
        point: None,
        time: time(0),
        written_bytes: 0,
    };
    let new = segment(0..5000, NONE);
    assert_conflict(
        catalog.publish(a.id, a.epoch, &empty, Some(&new)),
        "in no layer",
    );
    let layer = a.active(1, None);
    publish(&a, layer, 1, &segment(0..5000, 1..=1)).unwrap();
    let b = clone(&a, at(layer, 1), "b");
    let next = segment(4096..9000, 2..=2);
    assert_conflict(publish(&b, layer, 1, &next), "in no layer");
    assert_eq!(a.layer(layer).segments.len(), 1);
}

pub(super) fn a_stale_epoch_cannot_add_a_segment(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    catalog
        .acquire_lease(a.id, &holder("another"), TTL, &|_| true)
        .unwrap();
    let new = segment(0..5000, 1..=1);
    for refused in [
        publish(&a, layer, 1, &new),
        catalog.add_segment(a.id, a.epoch, layer, &new),
    ] {
        assert_refused!(
            refused,
            CatalogError::Fenced {
                ours: Epoch(1),
                current: Epoch(2)
            }
        );
    }
    assert_eq!(a.layer(layer).segments, []);
    assert!(!catalog.knows_object(&new.key).unwrap());
}

pub(super) fn an_expired_lease_publishes_no_segment_until_it_is_renewed(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    let new = segment(0..5000, 1..=1);
    harness.advance(TTL);
    assert_conflict(publish(&a, layer, 1, &new), "expired");
    assert_conflict(catalog.add_segment(a.id, a.epoch, layer, &new), "expired");
    assert_eq!((a.head(), a.layer(layer).segments), (None, vec![]));
    catalog
        .publish(a.id, a.epoch, &head(layer, 1), None)
        .unwrap();
    catalog.renew_lease(a.id, a.epoch, TTL).unwrap();
    harness.advance(TTL - Duration::from_nanos(1));
    publish(&a, layer, 1, &new).unwrap();
}

pub(super) fn a_released_lease_publishes_no_segment(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let layer = a.active(1, None);
    a.release();
    assert_conflict(publish(&a, layer, 1, &segment(0..5000, 1..=1)), "expired");
    assert_eq!(a.layer(layer).segments, []);
}

pub(super) fn an_older_layer_gets_a_segment_and_the_head_stays(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (older, _) = three(&a);
    let newer = a.active(6, Some(at(older, 5)));
    catalog
        .publish(a.id, a.epoch, &head(newer, 6), None)
        .unwrap();
    let tail = segment(written(3)..written(5), 4..=5);
    catalog.add_segment(a.id, a.epoch, older, &tail).unwrap();
    assert_eq!(a.layer(older).segments.last(), Some(&tail));
    assert_eq!(a.head(), Some(at(newer, 6)));
    let gap = segment(written(9)..written(10), NONE);
    assert_conflict(catalog.add_segment(a.id, a.epoch, older, &gap), "go on at");
}

pub(super) fn only_a_living_layer_of_the_database_gets_a_segment(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let b = database(&*catalog, "b");
    let of_b = b.active(1, None);
    let new = segment(0..5000, NONE);
    let add = |layer| catalog.add_segment(a.id, a.epoch, layer, &new);
    assert_conflict(add(of_b), "not one of this database");
    let unknown = LayerId::random(a.epoch);
    assert_refused!(add(unknown), CatalogError::NoSuchLayer(id) if id == unknown);
    let dead = a.active(1, None);
    kill(&*catalog, dead);
    assert_refused!(add(dead), CatalogError::NoSuchLayer(id) if id == dead);
    assert!(!catalog.knows_object(&new.key).unwrap());
}

pub(super) fn a_segment_ends_within_its_layer(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let add = |layer, segment: Segment| catalog.add_segment(a.id, a.epoch, layer, &segment);
    let rotated = a.rotated(1..=5, None);
    assert_conflict(add(rotated, segment(0..written(5) + 1, 1..=5)), "ends at");
    add(rotated, segment(0..written(5), 1..=5)).unwrap();
    let sealed = a.sealed(6..=9, Some(at(rotated, 5)));
    let bytes = a.layer(sealed).bytes.unwrap();
    assert_conflict(add(sealed, segment(0..bytes + 1, 6..=9)), "ends at");
    add(sealed, segment(0..bytes, 6..=9)).unwrap();
}

pub(super) fn an_object_is_in_one_segment(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, segments) = three(&a);
    let again = Segment {
        key: segments[0].key.clone(),
        ..segment(written(3)..written(4), 4..=4)
    };
    assert_conflict(publish(&a, layer, 4, &again), "segment already");
    let row = LayerRow {
        segments: segments.clone(),
        ..a.active_row(9, Some(at(layer, 3)))
    };
    assert_conflict(catalog.add_layer(a.epoch, &row), "segment already");
    assert_eq!(a.layer(layer).segments, segments);
}

pub(super) fn rows_bring_their_segments(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let sealed = sealed_row(&a, 1..=5);
    let active = LayerRow {
        segments: vec![segment(0..5000, 6..=6)],
        ..a.active_row(6, Some(at(sealed.id, 5)))
    };
    for row in [&sealed, &active] {
        catalog.add_layer(a.epoch, row).unwrap();
        assert_eq!(a.layer(row.id), *row);
    }
    publish(&a, active.id, 7, &segment(4096..9000, 7..=7)).unwrap();
    assert_eq!(a.layer(active.id).segments.len(), 2);
}

pub(super) fn rows_with_gaps_are_refused(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let whole = sealed_row(&a, 1..=5);
    let bytes = whole.bytes.unwrap();
    for (segments, about) in [
        (vec![segment(4096..bytes, NONE)], "go on at 0"),
        (
            vec![segment(0..5000, NONE), segment(8192..bytes, NONE)],
            "go on at 4096",
        ),
        (vec![segment(0..bytes - 1, NONE)], "before it ends"),
        (vec![segment(0..bytes + 1, NONE)], "ends at"),
    ] {
        let row = LayerRow {
            segments,
            ..whole.clone()
        };
        assert_conflict(catalog.add_layer(a.epoch, &row), about);
        assert!(!catalog.knows_layer(row.id).unwrap());
    }
    catalog.add_layer(a.epoch, &whole).unwrap();
}

pub(super) fn an_images_segments_cover_what_belongs_to_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    // The image ends within a page, and its sums begin with the next.
    let length = IMAGE_BYTES.next_multiple_of(4096) + SUMS_BYTES;
    let image = |end| LayerRow {
        segments: vec![segment(0..end, NONE)],
        ..a.image_row()
    };
    for end in [IMAGE_BYTES, IMAGE_BYTES + SUMS_BYTES, length - 1] {
        assert_conflict(catalog.add_layer(a.epoch, &image(end)), "before it ends");
    }
    let whole = image(length);
    assert_eq!(whole.length(), Some(length));
    catalog.add_layer(a.epoch, &whole).unwrap();
    assert_eq!(a.layer(whole.id), whole);
}

pub(super) fn new_layers_of_a_replacement_bring_their_segments(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let old = sealed_row(&a, 1..=5);
    catalog.add_layer(a.epoch, &old).unwrap();
    let new = sealed_row(&a, 1..=5);
    let cut = LayerRow {
        segments: new.segments[..1].to_vec(),
        ..new.clone()
    };
    let replace = |new| catalog.replace_layers(a.id, &[old.id], from_ref(new), &lsns(5..=5));
    assert_conflict(replace(&cut), "before it ends");
    replace(&new).unwrap();
    assert_eq!(catalog.layers(a.id).unwrap(), [new]);
    assert_eq!(
        a.layer(old.id).segments,
        old.segments,
        "readers may need them yet"
    );
    assert_eq!(catalog.garbage(NOW).unwrap(), [""; 0]);
}

pub(super) fn sealing_replaces_the_segments(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, old) = rotated(&a);
    let new = vec![segment(0..20_000, 1..=3)];
    assert!(catalog.seal(layer, 20_000, [9; 32], Some(&new)).unwrap());
    assert_eq!(catalog.segments(layer).unwrap(), new);
    assert_eq!(catalog.segments(LayerId::random(Epoch(1))).unwrap(), []);
    let row = a.layer(layer);
    assert_eq!((row.state, row.bytes), (LayerState::Sealed, Some(20_000)));
    assert_eq!(row.segments, new);
    let mut expected = keys(&old);
    expected.sort_unstable();
    assert_eq!(catalog.garbage(NOW).unwrap(), expected);
}

pub(super) fn sealing_keeps_objects_that_are_named_again(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, old) = rotated(&a);
    let new = [old[0].clone(), old[1].clone(), segment(8192..20_000, 3..=3)];
    assert!(catalog.seal(layer, 20_000, [9; 32], Some(&new)).unwrap());
    assert_eq!(a.layer(layer).segments, new);
    assert_eq!(catalog.garbage(NOW).unwrap(), keys(&old[2..]));
}

pub(super) fn sealing_without_segments_keeps_them(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, segments) = rotated(&a);
    assert!(catalog.seal(layer, 20_000, [9; 32], None).unwrap());
    assert_eq!(a.layer(layer).segments, segments);
    assert_eq!(catalog.garbage(NOW).unwrap(), [""; 0]);
}

pub(super) fn segments_of_a_sealed_layer_cover_all_of_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, old) = rotated(&a);
    for (segments, about) in [
        (vec![segment(4096..20_000, NONE)], "go on at 0"),
        (
            vec![segment(0..9000, NONE), segment(12_288..20_000, NONE)],
            "go on at 8192",
        ),
        (vec![segment(0..19_999, NONE)], "before it ends"),
        (vec![segment(0..20_001, NONE)], "ends at"),
    ] {
        let refused = catalog.seal(layer, 20_000, [9; 32], Some(&segments));
        assert_conflict(refused, about);
    }
    let row = a.layer(layer);
    assert_eq!((row.state, row.segments), (LayerState::Rotated, old));
    assert_eq!(catalog.garbage(NOW).unwrap(), [""; 0]);
}

pub(super) fn a_second_sealing_changes_no_segment(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, old) = rotated(&a);
    let first = vec![segment(0..20_000, 1..=3)];
    let seal = |segments: &[Segment]| catalog.seal(layer, 20_000, [9; 32], Some(segments));
    assert!(seal(&first).unwrap());
    assert!(!seal(&[segment(0..20_000, 1..=3)]).unwrap());
    assert!(!seal(&old).unwrap());
    assert!(seal(&first).unwrap(), "it may not have heard the answer");
    assert_eq!(a.layer(layer).segments, first);
    assert_eq!(catalog.garbage(NOW).unwrap().len(), 3);
}

pub(super) fn deleted_layers_leave_their_objects_as_garbage(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let row = sealed_row(&a, 1..=5);
    catalog.add_layer(a.epoch, &row).unwrap();
    sweep(&*catalog, GRACE, &[]);
    assert_eq!(
        catalog.garbage(NOW).unwrap(),
        [""; 0],
        "a dead layer has its objects"
    );
    harness.advance(GRACE);
    let deleted = catalog.sweep(GRACE, false, &mut |_| Vec::new()).unwrap();
    assert_eq!(deleted[0].segments, row.segments);
    let mut expected = keys(&row.segments);
    expected.sort_unstable();
    assert_eq!(catalog.garbage(NOW).unwrap(), expected);
    assert!(!catalog.knows_object(&expected[0]).unwrap());
}

pub(super) fn a_dry_run_makes_no_garbage(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let row = sealed_row(&a, 1..=5);
    catalog.add_layer(a.epoch, &row).unwrap();
    let said = catalog.sweep(NOW, true, &mut |_| Vec::new()).unwrap();
    assert_eq!(ids(&said), [row.id]);
    assert_eq!(catalog.garbage(NOW).unwrap(), [""; 0]);
    assert!(catalog.knows_object(&row.segments[0].key).unwrap());
}

pub(super) fn garbage_is_listed_once_it_is_old_enough(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let discard = || {
        let row = sealed_row(&a, 1..=5);
        catalog.add_layer(a.epoch, &row).unwrap();
        sweep(&*catalog, NOW, &[]);
        let mut keys = keys(&row.segments);
        keys.sort_unstable();
        keys
    };
    let first = discard();
    harness.advance(SECOND);
    let second = discard();
    let both = [first.clone(), second.clone()].concat();
    assert_eq!(catalog.garbage(NOW).unwrap(), both);
    assert_eq!(catalog.garbage(SECOND).unwrap(), first);
    harness.advance(GRACE - SECOND - Duration::from_nanos(1));
    assert_eq!(catalog.garbage(GRACE).unwrap(), [""; 0]);
    harness.advance(Duration::from_nanos(1));
    assert_eq!(harness.connect().garbage(GRACE).unwrap(), first);
    assert_eq!(catalog.garbage(Duration::MAX).unwrap(), [""; 0]);

    let unknown = ["of/somebody/else".to_owned()];
    catalog
        .forget_garbage(&[&first[..1], &unknown].concat())
        .unwrap();
    assert_eq!(catalog.garbage(GRACE).unwrap(), first[1..]);
    catalog.forget_garbage(&both).unwrap();
    assert_eq!(catalog.garbage(NOW).unwrap(), [""; 0]);
}

pub(super) fn garbage_is_no_segment_again(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, old) = rotated(&a);
    let sealed = [segment(0..20_000, 1..=3)];
    catalog.seal(layer, 20_000, [9; 32], Some(&sealed)).unwrap();
    let next = a.active(4, Some(at(layer, 3)));
    assert_conflict(publish(&a, next, 4, &old[0]), "garbage");
    assert_eq!(a.layer(next).segments, []);
    assert_eq!(a.head(), Some(at(layer, 3)));
}

pub(super) fn what_is_condemned_is_no_segment_for_so_long(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    let (layer, old) = rotated(&a);
    let sealed = [segment(0..20_000, 1..=3)];
    catalog.seal(layer, 20_000, [9; 32], Some(&sealed)).unwrap();
    let next = a.active(4, Some(at(layer, 3)));
    let late = segment(0..9000, 4..=4);
    // A segment's object is none's, and garbage has its own time.
    let asked = [
        keys(&sealed),
        keys(&old[..1]),
        keys(std::slice::from_ref(&late)),
    ]
    .concat();
    let condemned = catalog.condemn(&asked, GRACE).unwrap();
    assert_eq!(condemned, keys(std::slice::from_ref(&late)));
    assert_conflict(publish(&a, next, 4, &late), "garbage");
    assert_eq!(a.layer(next).segments, []);
    harness.advance(SECOND);
    assert_eq!(
        catalog.condemn(&condemned, GRACE).unwrap(),
        condemned,
        "who was killed before it deleted them asks again"
    );
    let listed = |older_than| catalog.garbage(older_than).unwrap().contains(&late.key);
    assert!(!listed(NOW), "it is not forgotten before its time");
    harness.advance(GRACE - SECOND);
    assert!(listed(NOW));
    catalog.renew_lease(a.id, a.epoch, TTL).unwrap();
    assert_conflict(publish(&a, next, 4, &late), "garbage");
    catalog.forget_garbage(&condemned).unwrap();
    assert!(!listed(NOW));
}

pub(super) fn an_object_is_known_while_a_segment_names_it(harness: &dyn Harness) {
    let catalog = harness.connect();
    let a = database(&*catalog, "a");
    assert!(!catalog.knows_object("x").unwrap());
    let (layer, old) = rotated(&a);
    let new = [segment(0..20_000, 1..=3)];
    assert!(catalog.knows_object(&old[1].key).unwrap());
    assert!(!catalog.knows_object(&new[0].key).unwrap());
    catalog.seal(layer, 20_000, [9; 32], Some(&new)).unwrap();
    assert!(!catalog.knows_object(&old[1].key).unwrap(), "it is garbage");
    assert!(catalog.knows_object(&new[0].key).unwrap());
}
