//! What a cluster costs that has nothing to do.

use std::time::{Duration, Instant};

use super::contender::{Contender, NODES};
use super::namespace;
use super::settings::Settings;
use super::table::Figure;
use crate::load::Error;

/// What a start leaves to be done has this long.
const REST: Duration = Duration::from_secs(10);

/// CPU and bytes of each node.
pub fn idle<C: Contender>(cluster: &mut C, settings: &Settings) -> Result<Vec<Figure>, Error> {
    std::thread::sleep(REST);
    let cpu = |cluster: &mut C| -> Result<Vec<f64>, Error> {
        cluster.members().iter().map(|member| Ok(member.process()?.cpu()?)).collect()
    };
    let (began, before, carried) = (Instant::now(), cpu(cluster)?, namespace::loopback_bytes()?);
    std::thread::sleep(Duration::from_secs(settings.idle_seconds));
    let (after, carried) = (cpu(cluster)?, namespace::loopback_bytes()? - carried);
    let seconds = began.elapsed().as_secs_f64();
    let share = after.iter().zip(&before).map(|(after, before)| (after - before) / seconds * 100.0);
    let mut figures = vec![Figure::events("idle: of a core, each node", "%", share.collect()).wanted("≤ 1")];
    if namespace::inside() {
        let each = carried as f64 / seconds / NODES as f64;
        figures.push(
            Figure::one("idle: bytes/s that a node sends, headers included", "", each).wanted("≤ 2000"),
        );
    }
    let resident = cluster.members().iter().map(|member| Ok(member.process()?.resident()? / 1_048_576.0));
    figures.push(Figure::events(
        "idle: MiB resident, each node",
        "",
        resident.collect::<Result<_, Error>>()?,
    ));
    Ok(figures)
}
