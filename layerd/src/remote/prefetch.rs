//! Fetching all of a database into the cache, so that later reads are local.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::fetch::{FetchError, RemoteLayer};
use super::file::RemoteFile;
use super::runtime::block_on;

/// What is asked for at a time.
const STEP: u64 = 8 << 20;
/// Steps under way: as much as the GETs that nobody waits for, so that readers find room.
const STEPS: usize = 6;

/// Fetches what is not there yet of all files; blocks. `progress` is called with bytes done and in
/// all. Ends early, without an error, once `stop` is set; a store that fails is an error, and
/// another call goes on from there. Files that are larger than the cache together can't all stay.
pub fn prefetch(
    files: &[Arc<RemoteFile>],
    progress: &(dyn Fn(u64, u64) + Sync),
    stop: &AtomicBool,
) -> io::Result<()> {
    let total = files.iter().map(|file| length(&file.range())).sum();
    let mut done = 0;
    block_on(async {
        let mut steps = FuturesUnordered::new();
        progress(done, total);
        for file in files {
            let range = file.range();
            let mut at = range.start;
            while at < range.end && !stop.load(Ordering::Relaxed) {
                let step = at..range.end.min(at + STEP);
                at = step.end;
                while steps.len() >= STEPS {
                    done += steps.next().await.transpose()?.unwrap_or(0);
                    progress(done, total);
                }
                steps.push(fetch(Arc::clone(file.layer()), step));
            }
        }
        while let Some(step) = steps.next().await {
            done += step?;
            progress(done, total);
        }
        Ok(())
    })?
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

async fn fetch(layer: Arc<RemoteLayer>, range: Range<u64>) -> Result<u64, FetchError> {
    let bytes = length(&range);
    layer.fetch(range).await?;
    Ok(bytes)
}
