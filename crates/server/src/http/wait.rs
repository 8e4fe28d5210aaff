//! Why a job waits: the engine's reason as people and programs are told.

use api::job::{Estimate, JobKey, WaitReason, Waiting};
use api::words::quoted;
use engine::wait::{Instead, Wait};
use graph::{BuildId, JobName, WorkerId};

use crate::records::DEFAULT_POOL;

/// The name of a pool; the default pool has the empty name in pipelines.
pub fn pool_name(pool: &str) -> &str {
    if pool.is_empty() { DEFAULT_POOL } else { pool }
}

/// What people call a worker.
pub type NameOf<'a> = &'a dyn Fn(&WorkerId) -> String;

/// The reason, as data and as a sentence. `prompt` is the question of the job's gate, if it is open.
pub fn told(build: BuildId, job: &JobName, wait: Option<&Wait>, prompt: &str, name_of: NameOf<'_>) -> Waiting {
    let (reason, text) = match wait {
        None => (WaitReason::Nothing, "it runs or has ended".to_owned()),
        Some(Wait::Gate) => {
            (WaitReason::Gate { prompt: prompt.to_owned() }, format!("it waits for a person: {prompt}"))
        }
        Some(wait) => reason(wait, name_of),
    };
    let estimate = match wait {
        Some(Wait::Queue { estimate: Some(estimate), .. }) => {
            Some(Estimate { low_ms: estimate.low_ms, high_ms: estimate.high_ms })
        }
        _ => None,
    };
    Waiting { build, job: job.to_string(), reason, text, estimate }
}

fn key((build, job): &(BuildId, JobName)) -> JobKey {
    JobKey { build: *build, job: job.to_string() }
}

fn reason(wait: &Wait, name_of: NameOf<'_>) -> (WaitReason, String) {
    match wait {
        Wait::Gate => (WaitReason::Gate { prompt: String::new() }, "it waits for a person".to_owned()),
        Wait::Resolving => (
            WaitReason::Resolving,
            "it is worked out whether an earlier result may be taken, or the next decision is due".to_owned(),
        ),
        Wait::Needs { jobs, count } => {
            let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
            let quoted = jobs.iter().map(|job| format!("`{job}`")).collect::<Vec<_>>().join(", ");
            let more = count.saturating_sub(jobs.len() as u64);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            (WaitReason::Needs { jobs, count: *count }, format!("it waits for {quoted}{more}"))
        }
        Wait::Same { build, job, attempt } => {
            let text = format!("job `{job}` of build {build} is the same operation; its result is awaited");
            let job = JobKey { build: *build, job: job.to_string() };
            (WaitReason::Same { job, attempt: attempt.map(|attempt| attempt.0) }, text)
        }
        Wait::Group { group, holders, position } => {
            let before = holders.first().map(|(build, job)| format!(" behind job `{job}` of build {build}"));
            let text = format!("it is number {position} in the group `{group}`{}", before.unwrap_or_default());
            let holders = holders.iter().map(key).collect();
            (WaitReason::Concurrency { group: group.clone(), holders, position: *position }, text)
        }
        Wait::Queue { pool, position, ahead, holders, .. } => {
            let pool = pool_name(pool).to_owned();
            let running = match holders.as_slice() {
                [] => String::new(),
                [(build, job)] => format!("; job `{job}` of build {build} runs there"),
                [(build, job), ..] => format!("; job `{job}` of build {build} and others run there"),
            };
            let text = format!("it is number {position} in the queue of the pool `{pool}`{running}");
            let holders = holders.iter().map(key).collect();
            (WaitReason::Queue { pool, position: *position, ahead: *ahead, holders }, text)
        }
        Wait::Affinity { worker, until } => {
            let until = api::time::Time(*until);
            let text = format!("it waits for the worker {}, which has what it needs, until {until}", name_of(worker));
            (WaitReason::Affinity { worker: worker.to_string(), until }, text)
        }
        Wait::Held { pool, reason } => {
            let pool = pool_name(pool).to_owned();
            let text = format!("the pool `{pool}` is {reason}");
            (WaitReason::Held { pool, reason: reason.clone() }, text)
        }
        Wait::Worker { pool, labels: _, resources: _, instead } => no_worker(pool_name(pool), instead, name_of),
        Wait::Child { build, stuck } => {
            let stuck = stuck
                .as_ref()
                .map(|(build, job, wait)| (JobKey { build: *build, job: job.to_string() }, reason(wait, name_of).1));
            let text = match &stuck {
                None => format!("it waits for build {build}"),
                Some((key, text)) => {
                    format!("it waits for build {build}, where `{}` of build {} waits: {text}", key.job, key.build)
                }
            };
            (WaitReason::Build { build: *build, stuck: stuck.map(|(key, _)| key) }, text)
        }
        Wait::Backoff { until } => {
            let at = api::time::Time(*until);
            (WaitReason::Retry { at }, format!("its next try may begin at {at}"))
        }
    }
}

fn no_worker(pool: &str, instead: &Instead, name_of: NameOf<'_>) -> (WaitReason, String) {
    let missing = match instead {
        Instead::Nobody => {
            format!("the pool `{pool}` has no worker; `ropewalk work --pool {}` starts one", quoted(pool))
        }
        Instead::Closed { workers } => {
            let first = workers.first().map(|(_, reason)| format!(": {reason}")).unwrap_or_default();
            format!("the workers of the pool `{pool}` that could run it take nothing new{first}")
        }
        Instead::Nearest { worker, labels, cpu_milli, memory_bytes } => {
            let mut lacks: Vec<String> = labels
                .iter()
                .map(|label| match label.as_str() {
                    graph::ENGINE_LABEL => {
                        "a container engine (install Docker or Podman there and start the worker again)".to_owned()
                    }
                    label => format!("the label `{label}`"),
                })
                .collect();
            if *cpu_milli > 0 {
                lacks.push(format!("{} of a processor's cores", thousandths(*cpu_milli)));
            }
            if *memory_bytes > 0 {
                // Upwards: so much more is enough.
                lacks.push(format!("{} MiB of memory", memory_bytes.div_ceil(1 << 20)));
            }
            let worker = name_of(worker);
            format!("no worker of the pool `{pool}` has all it asks for; {worker} lacks {}", lacks.join(", "))
        }
    };
    let closed = match instead {
        Instead::Closed { workers } => {
            workers.iter().map(|(worker, reason)| (worker.to_string(), reason.clone())).collect()
        }
        Instead::Nobody | Instead::Nearest { .. } => std::collections::BTreeMap::new(),
    };
    (WaitReason::NoWorker { pool: pool.to_owned(), missing: missing.clone(), closed }, missing)
}

/// A number of thousandths as people write it: `2`, `1.5`, `0.25`.
fn thousandths(number: u64) -> String {
    let text = format!("{}.{:03}", number / 1000, number % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_starts_a_worker_can_be_copied() {
        let (_, text) = no_worker("a b; reboot", &Instead::Nobody, &|_| String::new());
        assert_eq!(text, "the pool `a b; reboot` has no worker; `ropewalk work --pool 'a b; reboot'` starts one");
    }

    #[test]
    fn what_a_worker_lacks_is_told_in_words() {
        let instead = Instead::Nearest {
            worker: WorkerId("669be2337a3c30fcc9299fc07720bd90".into()),
            labels: ["gpu".to_owned()].into(),
            cpu_milli: 1500,
            memory_bytes: (3 << 30) + 1,
        };
        let (_, text) = no_worker("linux", &instead, &|_| "beta".to_owned());
        let expected = "no worker of the pool `linux` has all it asks for; beta lacks the label `gpu`, 1.5 of a processor's cores, \
                        3073 MiB of memory";
        assert_eq!(text, expected);
        assert_eq!([2000, 250, 1001].map(thousandths), ["2", "0.25", "1.001"]);
    }
}
