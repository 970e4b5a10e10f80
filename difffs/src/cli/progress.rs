//! Progress bars: on stderr, and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const TEMPLATE: &str = "{msg} [{bar:30}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";

/// Runs `work` with a bar that it can move; the bar is gone when it returns.
pub(crate) fn with_bar<T>(what: String, work: impl FnOnce(&(dyn Fn(u64, u64) + Sync)) -> T) -> T {
    // indicatif's target for stderr draws nothing unless stderr is a terminal.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(TEMPLATE);
    bar.set_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    );
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    let result = work(&|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid_and_the_result_comes_through() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let result = with_bar("testing".into(), |progress| {
            progress(1, 2);
            progress(2, 2);
            7
        });
        assert_eq!(result, 7);
    }
}
