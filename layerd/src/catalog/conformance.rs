//! What every catalog must do, as tests that each implementation runs against itself.
//!
//! An implementation brings a [`Harness`] and writes, in its tests,
//! `layerd::catalog_conformance!(fresh);`, where `fresh` is a function that makes one: that gives
//! one `#[test]` per claim. The claims are the sentences of the trait's documentation; where they
//! are about time, the harness moves the catalog's clock, so that nothing sleeps.

mod chains;
mod databases;
mod fixture;
mod layers;
mod leases;
mod model;
mod pins;
mod races;
mod replacing;
mod segments;
mod service;
mod snapshots;
mod sweeping;

use std::time::Duration;

use super::Catalog;

/// One new, empty catalog, which goes with the harness.
pub trait Harness: Sync {
    /// Opens the catalog once more, as another process would.
    fn connect(&self) -> Box<dyn Catalog>;

    /// Moves the catalog's clock on, for all connections.
    fn advance(&self, by: Duration);

    /// How many histories the model tells; fewer where a call takes milliseconds.
    fn histories(&self) -> u64 {
        4
    }
}

/// Hands the list of all claims to the macro `$then`, behind the tokens `$with`.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_catalog_claim {
    ($($then:ident)::+ $(, $with:ident)?) => {
        $($then)::+! { $($with)?;
            databases {
                a_new_database_is_empty,
                a_name_is_given_once,
                the_name_of_a_removed_database_is_free_at_once,
                living_databases_are_listed_by_name,
                unknown_databases_are_refused,
                a_removed_database_is_found_by_its_id_alone,
                a_removed_database_takes_no_changes,
                a_database_is_not_removed_while_its_lease_is_held,
                an_expired_lease_does_not_keep_a_database_from_being_removed,
                undrop_brings_the_most_recently_removed_one_back,
                undrop_is_refused_while_the_name_is_taken,
                undrop_brings_back_layers_that_a_sweep_found_dead,
                undrop_is_refused_once_layers_are_deleted,
                retention_is_any_number_of_seconds,
                a_clone_begins_at_its_base,
                a_clone_of_an_empty_database_is_empty,
                a_clone_needs_a_living_base,
                everything_is_there_after_reconnecting,
            }
            leases {
                the_first_lease_has_epoch_one_and_ends_after_its_time,
                epochs_rise_with_every_grant,
                epochs_rise_through_removal_and_return,
                a_held_lease_is_refused_with_its_holder_and_age,
                a_lease_ends_at_its_expiry,
                a_lease_whose_holder_is_dead_is_taken,
                an_expired_lease_is_granted_without_asking_about_its_holder,
                renewal_counts_from_now,
                an_expired_lease_that_is_the_newest_is_renewed,
                a_superseded_lease_is_fenced,
                a_released_lease_is_not_renewed,
                the_holder_sees_that_its_lease_is_wanted,
                wanting_a_free_lease_does_nothing,
                a_released_lease_is_free_at_once,
                a_stale_release_does_nothing,
                leases_of_two_databases_do_not_meet,
            }
            layers {
                rows_come_back_as_they_were_added,
                any_sixty_four_bits_are_an_id,
                a_stale_epoch_cannot_add_a_layer,
                a_stale_epoch_cannot_publish,
                a_stale_epoch_cannot_rotate,
                an_epoch_that_was_never_granted_is_fenced,
                an_expired_lease_still_publishes_until_another_is_granted,
                a_layer_needs_a_living_parent,
                a_layer_needs_living_images,
                a_layer_stands_on_a_commit_that_its_parent_holds,
                a_layer_stands_on_an_earlier_commit,
                a_layer_is_added_once,
                living_layers_are_listed_by_lsn_behind_the_images,
                publishing_moves_the_head,
                the_head_never_goes_back,
                a_head_is_published_again_at_the_same_commit,
                a_head_needs_a_living_layer_that_holds_it,
                rotation_fixes_the_end_and_moves_the_head,
                rotation_names_the_images,
                a_layer_is_rotated_once,
                another_databases_layer_is_not_rotated,
                a_layer_without_commits_is_dead_when_it_is_rotated,
                a_refused_rotation_changes_nothing,
                sealing_notes_length_and_hash,
                sealing_twice_does_nothing,
                an_active_layer_is_not_sealed,
                an_unknown_layer_is_not_sealed,
                a_layer_is_known_dead_or_alive,
            }
            chains {
                the_empty_state_has_no_layers,
                a_chain_is_listed_from_the_bottom,
                images_stand_before_their_first_user_and_once,
                a_chain_crosses_into_the_bases_of_clones,
                a_restored_state_leaves_out_the_layers_between,
                a_chain_says_its_databases_generation,
                a_point_in_a_dead_layer_is_refused,
                a_point_in_an_unknown_layer_is_refused,
                a_point_outside_its_layer_is_refused,
                a_chain_of_hundreds_of_layers_is_found,
                a_commit_is_found_in_the_layer_that_holds_it,
                an_active_layer_may_hold_every_later_commit,
                a_commit_that_no_layer_covers_is_not_found,
                a_dead_layers_commits_are_not_found,
                a_clone_finds_commits_up_to_its_base_in_its_source,
                a_clone_of_a_clone_finds_each_commit_where_it_was_written,
                a_removed_source_still_resolves,
            }
            snapshots {
                a_snapshot_is_found_by_name_and_by_id,
                snapshots_are_listed_by_commit_then_by_creation,
                one_commit_has_any_number_of_snapshots,
                a_snapshots_name_is_given_once_per_database,
                a_commit_of_the_active_layer_is_snapshotted_before_it_is_published,
                a_commit_in_no_layer_is_not_snapshotted,
                the_base_of_a_clone_is_snapshotted_but_nothing_before_it,
                a_clone_does_not_inherit_snapshots,
                a_removed_snapshot_is_gone_and_its_name_is_free,
                a_snapshot_of_another_database_is_not_found,
            }
            pins {
                a_pin_keeps_the_layers_of_its_chain,
                the_empty_state_is_pinned_too,
                a_refused_chain_pins_nothing,
                pinning_again_replaces_the_pin,
                a_pin_expires_by_the_catalogs_clock,
                renewal_prolongs_a_pin,
                a_pin_that_is_gone_is_not_renewed,
                a_pin_ends_when_it_is_taken_away,
                setting_a_pin_replaces_its_layers,
                a_pin_goes_on_holding_layers_that_died,
                a_pin_does_not_begin_to_hold_dead_layers,
                a_pin_does_not_hold_unknown_layers,
                a_repeated_layer_is_held_once,
            }
            replacing {
                old_layers_die_and_new_ones_take_their_place,
                the_head_moves_to_the_new_layer,
                children_move_to_the_new_layer,
                clones_and_their_layers_move_to_the_new_layer,
                references_to_a_removed_database_move_too,
                each_reference_moves_to_the_layer_that_covers_it,
                generations_of_touched_databases_rise_and_no_others,
                images_that_nobody_living_uses_die,
                images_that_a_new_layer_uses_live,
                a_head_at_a_dropped_commit_stops_it,
                a_child_on_a_dropped_commit_stops_it,
                a_clone_at_a_dropped_commit_stops_it,
                a_snapshot_at_a_dropped_commit_stops_it,
                a_clones_snapshots_do_not_stop_it,
                an_active_or_rotated_layer_is_not_replaced,
                a_dead_layer_is_not_replaced,
                another_databases_layer_is_not_replaced,
                kept_commits_must_be_in_old_and_new_layers,
                new_layers_must_not_share_commits,
                a_new_layer_needs_a_living_parent,
                replacing_needs_no_lease,
                pins_still_hold_replaced_layers,
            }
            sweeping {
                the_inventory_holds_everything,
                expired_leases_are_not_in_the_inventory,
                what_is_not_kept_dies_and_is_deleted_after_the_grace,
                grace_zero_deletes_at_once,
                a_layer_found_dead_by_mistake_lives_again,
                a_replaced_layer_never_lives_again,
                a_dead_layer_in_anothers_place_stays_dead,
                a_dead_layer_on_a_dead_one_stays_dead,
                a_pinned_layer_is_not_deleted_whatever_the_mark,
                an_expired_pin_holds_nothing_and_is_deleted,
                a_living_head_is_not_deleted_whatever_the_mark,
                what_a_kept_layer_needs_is_not_deleted_whatever_the_mark,
                deleted_rows_are_returned_whole,
                a_dry_run_says_the_same_and_changes_nothing,
                a_removed_database_goes_after_its_retention,
                a_removed_database_stays_while_it_has_layers,
                a_removed_database_stays_while_it_is_a_base,
                a_living_database_never_goes,
            }
            segments {
                a_published_segment_is_in_its_layers_row,
                published_segments_go_on_where_the_last_one_ended,
                small_segments_share_a_page,
                a_refused_segment_moves_no_head,
                a_refused_head_adds_no_segment,
                a_segment_that_is_published_again_is_there_once,
                a_segment_needs_a_head_in_a_layer_of_its_database,
                a_stale_epoch_cannot_add_a_segment,
                an_expired_lease_publishes_no_segment_until_it_is_renewed,
                a_released_lease_publishes_no_segment,
                an_older_layer_gets_a_segment_and_the_head_stays,
                only_a_living_layer_of_the_database_gets_a_segment,
                a_segment_ends_within_its_layer,
                an_object_is_in_one_segment,
                rows_bring_their_segments,
                rows_with_gaps_are_refused,
                an_images_segments_cover_what_belongs_to_it,
                new_layers_of_a_replacement_bring_their_segments,
                sealing_replaces_the_segments,
                sealing_keeps_objects_that_are_named_again,
                sealing_without_segments_keeps_them,
                segments_of_a_sealed_layer_cover_all_of_it,
                a_second_sealing_changes_no_segment,
                deleted_layers_leave_their_objects_as_garbage,
                a_dry_run_makes_no_garbage,
                garbage_is_listed_once_it_is_old_enough,
                garbage_is_no_segment_again,
                what_is_condemned_is_no_segment_for_so_long,
                an_object_is_known_while_a_segment_names_it,
            }
            service {
                an_announced_worker_is_known_while_it_is_seen,
                a_worker_that_is_announced_again_keeps_its_beginning,
                a_removed_worker_is_forgotten,
                workers_that_are_long_gone_are_forgotten,
                a_token_comes_back_as_it_was_made,
                a_token_ends_at_its_expiry,
                a_revoked_token_stays_revoked,
                an_unknown_token_is_not_revoked,
                the_first_signing_key_is_made_by_who_asks,
                a_signing_key_is_renewed_when_it_is_old,
                an_old_signing_key_goes_once_nothing_can_be_signed_with_it,
                signing_keys_are_the_same_for_all,
            }
            races {
                a_name_is_won_by_one,
                a_lease_is_won_by_one,
                a_snapshots_name_is_won_by_one,
                concurrent_publishers_end_at_the_highest_commit,
                nothing_is_published_under_a_taken_lease,
                a_pinned_chain_is_never_swept_away,
                a_replacement_and_a_snapshot_never_both_win,
                a_replacement_and_a_clone_never_both_win,
                the_next_segment_is_published_by_one,
            }
            model {
                any_history_is_what_a_simple_model_makes_of_it,
            }
        }
    };
}

/// Makes one `#[test]` of every claim, over the catalogs that the function `$fresh` makes; see
/// [`Harness`].
#[macro_export]
macro_rules! catalog_conformance {
    ($fresh:ident) => {
        $crate::__each_catalog_claim!($crate::__catalog_claims_as_tests, $fresh);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __catalog_claims_as_tests {
    ($fresh:ident; $($group:ident { $($claim:ident,)+ })+) => {$(
        mod $group {
            $(
                #[test]
                fn $claim() {
                    let harness = super::$fresh();
                    $crate::catalog::conformance::run(stringify!($group), stringify!($claim), &harness);
                }
            )+
        }
    )+};
}

type Claim = fn(&dyn Harness);

macro_rules! claims_as_table {
    (; $($group:ident { $($claim:ident,)+ })+) => {
        const CLAIMS: &[(&str, &str, Claim)] =
            &[$($((stringify!($group), stringify!($claim), $group::$claim)),+),+];
    };
}

__each_catalog_claim!(claims_as_table);

/// Puts one claim to the test; panics where it does not hold.
///
/// # Panics
/// Also if there is no such claim.
pub fn run(group: &str, claim: &str, harness: &dyn Harness) {
    let found = CLAIMS
        .iter()
        .find(|(of, name, _)| *of == group && *name == claim);
    let Some((_, _, check)) = found else {
        panic!("there is no claim {group}::{claim}")
    };
    check(harness);
}
