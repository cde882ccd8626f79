//! One thing measured beside its limit, in the same run.
//!
//! Criterion prints the throughput of each; what is added here is how much of the limit each one reaches.

use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};

/// Runs of each at least; none takes so long that more are worth waiting for.
const SAMPLES: usize = 10;
const WARM_UP: Duration = Duration::from_secs(1);

/// A group of measurements and their limit.
pub struct Beside<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    name: String,
    limit: Option<Duration>,
}

impl<'a> Beside<'a> {
    /// A group `name`, of which one run handles `amount`.
    #[must_use]
    pub fn new(criterion: &'a mut Criterion, name: &str, amount: Throughput) -> Self {
        let mut group = criterion.benchmark_group(name);
        group
            .sample_size(SAMPLES)
            .warm_up_time(WARM_UP)
            .sampling_mode(SamplingMode::Flat)
            .throughput(amount);
        Beside {
            group,
            name: name.to_owned(),
            limit: None,
        }
    }

    /// Measures the limit. Comes first.
    pub fn limit(&mut self, run: impl FnMut()) {
        self.limit = self.run("limit", run);
    }

    /// Measures something, and prints how much of the limit it reaches.
    #[expect(clippy::print_stdout, reason = "a benchmark is a program for people")]
    pub fn measure(&mut self, name: &str, run: impl FnMut()) {
        if let (Some(took), Some(limit)) = (self.run(name, run), self.limit) {
            println!(
                "{}/{name}: {:.2} of the limit (medians {:.3} s and {:.3} s)\n",
                self.name,
                limit.as_secs_f64() / took.as_secs_f64(),
                took.as_secs_f64(),
                limit.as_secs_f64(),
            );
        }
    }

    /// The median of all runs; none if the command line left it out, or only has it tried.
    fn run(&mut self, name: &str, mut run: impl FnMut()) -> Option<Duration> {
        let mut took = Vec::new();
        self.group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let mut total = Duration::ZERO;
                for _ in 0..times {
                    let since = Instant::now();
                    run();
                    took.push(since.elapsed());
                    total += since.elapsed();
                }
                total
            });
        });
        if took.len() < SAMPLES {
            // Only tried, not measured.
            return None;
        }
        took.sort_unstable();
        took.get(took.len() / 2).copied()
    }
}
