//! What ends by itself: results that nobody opens, streams whose reader is lost, uploads that stop,
//! sessions that are idle.

use std::sync::Arc;
use std::time::Duration;

use proto::v1::Reason;

use super::query::Query;
use super::shared::Shared;
use crate::wire::status::refused;

/// How often it is looked: what ends by itself ends at most this late.
const PERIOD: Duration = Duration::from_millis(250);

/// Looks after what ends by itself, until the worker does.
pub async fn run(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for query in shared.queries.all() {
            if let Some(why) = expired(&shared, &query) {
                query.cancel(refused(Reason::Gone, why));
                shared.queries.remove(&query);
            }
        }
        shared.sessions.expire();
    }
}

/// Why a statement ends now, if it does.
fn expired(shared: &Shared, query: &Query) -> Option<&'static str> {
    let limits = &shared.config.limits;
    let is_abandoned = query
        .inputs
        .iter()
        .any(|input| input.idle().is_some_and(|idle| idle > limits.input_idle));
    if is_abandoned {
        return Some("the rest of an input did not come; the statement was rolled back");
    }
    let answered = query.answered_at()?;
    if !query.output.was_opened() {
        let is_over = answered.elapsed() > query.handle_ttl;
        return is_over.then_some("nobody opened the result in time");
    }
    let lost = query.output.lost_since()?;
    (lost.elapsed() > limits.resume_time).then_some("nobody went on with the result in time")
}
