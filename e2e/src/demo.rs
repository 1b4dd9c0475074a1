//! The demo's story: cluster, images, operator, world, players; and the way back. Keeps the pids of what it left
//! running in `build/demo`. Knows no Redis.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::background::{self, BackgroundError};
use crate::cluster::{Cluster, ClusterError, Source, Target, root};
use crate::fortia::{self, Fortia, FortiaError, is_ready};
use crate::usage;

const NAME: &str = "demo";
const NAMESPACE: &str = "fortia";
/// The name in `fortiacluster.yaml`.
const WORLD: &str = "midgard";
const PLAYERS: &str = "20";
const IDLE_MEASURED: Duration = Duration::from_secs(30);
/// Patience for a re-sharding to flip.
const RESHARD: Duration = Duration::from_secs(600);

/// Where progress goes, a line at a time.
pub type Say<'a> = &'a mut dyn FnMut(String);

/// Why the demo did not come up or go down.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The cluster did not do what was asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Fortia did not.
    #[error(transparent)]
    Fortia(#[from] FortiaError),
    /// A program could not be left running or ended.
    #[error(transparent)]
    Background(#[from] BackgroundError),
    /// There is no world to re-shard.
    #[error("there is no world: make demo brings one up")]
    NoWorld,
    /// A number of shards that no world has.
    #[error("N={0}: a world has 1 to 64 shards, like make demo-reshard N=3")]
    Shards(u32),
    /// The machine's cgroups do not tell what pods take.
    #[error("processor time of the pods cannot be read from /sys/fs/cgroup; is the local cluster `demo` up?")]
    Unmeasured,
}

/// Brings up everything and says where it is.
///
/// # Errors
/// At the first step that fails; running it again goes on from there.
pub async fn up(say: Say<'_>) -> Result<(), DemoError> {
    say("1/6 cluster: a Kubernetes to run on".into());
    let cluster = Cluster::up(NAME).await?;
    say("2/6 images: into the cluster's nodes".into());
    cluster.load(&root().join("build/images.tar")).await?;
    say("3/6 operator: helm upgrade --install fortia-operator".into());
    fortia::install_operator(&cluster, NAMESPACE).await?;
    let applied = Instant::now();
    let fortia = match Fortia::find(&cluster, NAMESPACE, WORLD).await? {
        Some(fortia) => {
            say("4/6 world: it is there already, and stays as it is".into());
            fortia
        }
        None => {
            say("4/6 world: kubectl apply -f fortiacluster.yaml".into());
            Fortia::apply_file(&cluster, NAMESPACE, Path::new("fortiacluster.yaml")).await?
        }
    };
    let fresh = wait_until_ready(&fortia, say).await?;
    if fresh {
        say(format!("figure demo.ready_s {:.1} s", applied.elapsed().as_secs_f64()));
    }
    say("5/6 addresses: forwarding auth and game to this machine".into());
    let auth = forward(&fortia, "auth", 8081).await?;
    let game = forward(&fortia, "game", 8080).await?;
    say(format!("6/6 players: {PLAYERS} of them, through the public API"));
    start_players(&auth, &game).await?;
    for line in closing(&fortia, &auth, &game) {
        say(line);
    }
    figures(&cluster, say);
    Ok(())
}

/// Re-shards the demo's world while its players play, and redraws one line until the new version serves.
///
/// # Errors
/// When the demo is not up, or the re-sharding does not come to its flip.
pub async fn reshard(shards: u32, say: Say<'_>, redraw: Say<'_>) -> Result<(), DemoError> {
    if !(1..=64).contains(&shards) {
        return Err(DemoError::Shards(shards));
    }
    let fortia = world().await?;
    let before = fortia.object().await?["status"]["layout"].clone();
    if before["shards"] == shards {
        say(format!("the world has {shards} shards already"));
        return Ok(());
    }
    say(format!("kubectl scale fortiacluster {WORLD} --replicas={shards}"));
    fortia.scale(shards).await?;
    let mut last = String::new();
    let seen = |object: &Value| {
        let line = bar(object, &before);
        if !line.is_empty() && line != last {
            redraw(line.clone());
            last = line;
        }
    };
    let flipped = |object: &Value| {
        let status = &object["status"];
        status["layout"]["version"].as_u64() > before["version"].as_u64()
            && status["rebalance"]["lastPauseMs"].is_u64()
    };
    let object = fortia.wait("the flip", RESHARD, seen, flipped).await?;
    let (layout, rebalance) = (&object["status"]["layout"], &object["status"]["rebalance"]);
    say(format!(
        "v{} serves on {} shards; writes stood still for {} ms",
        layout["version"], layout["shards"], rebalance["lastPauseMs"]
    ));
    Ok(())
}

/// Removes every trace of the demo.
///
/// # Errors
/// When something could not be ended or removed.
pub async fn down(say: Say<'_>) -> Result<(), DemoError> {
    for name in ["players", "forward-auth", "forward-game"] {
        background::stop(&state(name)).await?;
    }
    if std::env::var("CLUSTER").is_ok_and(|value| value == "current") {
        let cluster = Cluster::up(NAME).await?;
        say("removing the demo's world from the current context".into());
        remove_from(&cluster, say).await?;
    } else {
        say("ending the local cluster".into());
        Cluster::down(NAME).await?;
    }
    background::forget(&state(""))?;
    say("the demo is gone".into());
    Ok(())
}

/// Ends the players, lets the world settle, and prints the figure `demo.idle_cores`.
///
/// # Errors
/// When the demo is not up on a local cluster.
pub async fn idle(say: Say<'_>) -> Result<(), DemoError> {
    world().await?;
    background::stop(&state("players")).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = usage::pod_cpu_seconds(NAME).ok_or(DemoError::Unmeasured)?;
    let begun = Instant::now();
    tokio::time::sleep(IDLE_MEASURED).await;
    let after = usage::pod_cpu_seconds(NAME).ok_or(DemoError::Unmeasured)?;
    let cores = (after - before) / begun.elapsed().as_secs_f64();
    say(format!("figure demo.idle_cores {cores:.2} cores"));
    Ok(())
}

/// The demo's world, if it is up: nothing is brought up for the asking.
async fn world() -> Result<Fortia, DemoError> {
    let cluster = Cluster::running(NAME).await.ok_or(DemoError::NoWorld)?;
    // A context without Fortia does not know what is asked for.
    Fortia::find(&cluster, NAMESPACE, WORLD).await.ok().flatten().ok_or(DemoError::NoWorld)
}

/// How far the re-sharding is, in one line. A small world is carried between two looks: after the flip the line says what
/// was, so that its end is always seen.
fn bar(object: &Value, before: &Value) -> String {
    let (layout, rebalance) = (&object["status"]["layout"], &object["status"]["rebalance"]);
    let flipped = layout["version"].as_u64() > before["version"].as_u64();
    match rebalance["keys"].as_u64().filter(|_| flipped) {
        Some(keys) => format!(
            "v{}→v{}, {}→{} shards  {} [{}] 100 %  {keys} keys carried, {} compared equal",
            before["version"],
            layout["version"],
            before["shards"],
            layout["shards"],
            rebalance["phase"].as_str().unwrap_or_default(),
            "#".repeat(20),
            rebalance["proof"]["keys"]
        ),
        // What is told before the re-sharding begins is of something else.
        None if rebalance.is_null() => String::new(),
        None => {
            let told = fortia::condition(object, "Progressing").and_then(|c| c["message"].as_str());
            told.unwrap_or_default().to_owned()
        }
    }
}

/// Waits for Ready, telling each change of phase and message; whether there was anything to wait for.
async fn wait_until_ready(fortia: &Fortia, say: Say<'_>) -> Result<bool, DemoError> {
    let mut last = String::new();
    let mut changes = 0;
    let seen = |object: &Value| {
        let progress = progress_line(object);
        if progress != last {
            changes += 1;
            say(format!("    {progress}"));
            last = progress;
        }
    };
    fortia.wait("Ready", fortia::READY, seen, is_ready).await?;
    Ok(changes > 1)
}

fn progress_line(object: &Value) -> String {
    let phase = object["status"]["phase"].as_str().unwrap_or("Pending");
    let message = fortia::condition(object, "Ready").and_then(|c| c["message"].as_str()).unwrap_or("");
    format!("{phase}: {message}")
}

async fn forward(fortia: &Fortia, service: &str, wanted: u16) -> Result<String, DemoError> {
    let target = Target::Service {
        namespace: fortia.namespace.clone(),
        name: format!("{}-{service}", fortia.name),
        port: 80,
    };
    let state = state(&format!("forward-{service}"));
    if let Some(address) = background::running(&state) {
        return Ok(address);
    }
    let forward = fortia.cluster.forward_at(&target, wanted).await?;
    let url = forward.url();
    if let Some(pid) = forward.detach() {
        background::remember(&state, pid, &url)?;
    }
    Ok(url)
}

async fn start_players(auth: &str, game: &str) -> Result<(), DemoError> {
    let state = state("players");
    if background::running(&state).is_some() {
        return Ok(());
    }
    let program = root().join("target/debug/fortia-players");
    let arguments = ["--auth", auth, "--game", game, "--players", PLAYERS];
    background::start(&state, &program, &arguments, "in the world")?;
    Ok(())
}

/// Removes the world; the operator and the definition go only when no other world needs them.
async fn remove_from(cluster: &Cluster, say: Say<'_>) -> Result<(), DemoError> {
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"]).await?;
    let others = cluster.kubectl(&["get", "fortiacluster", "-A", "-o", "name"]).await?;
    if !others.trim().is_empty() {
        say(format!("the operator stays, for {}", others.trim().replace('\n', ", ")));
        return Ok(());
    }
    cluster
        .helm(&[
            "uninstall",
            "fortia-operator",
            "--namespace",
            fortia::SYSTEM,
            "--ignore-not-found",
            "--wait",
        ])
        .await?;
    cluster.kubectl(&["delete", "crd", "fortiaclusters.fortia.dev", "--ignore-not-found"]).await?;
    cluster.kubectl(&["delete", "namespace", fortia::SYSTEM, "--ignore-not-found"]).await?;
    Ok(())
}

fn closing(fortia: &Fortia, auth: &str, game: &str) -> Vec<String> {
    let kubectl = match fortia.cluster.kubeconfig() {
        Some(_) => format!("build/fortia-cluster --name {NAME} kubectl"),
        None => "kubectl".into(),
    };
    let at = format!("-n {} fortiacluster {}", fortia.namespace, fortia.name);
    vec![
        String::new(),
        "The world lives. Look at it:".into(),
        format!("  map and game API   {game}/        (API: {game}/openapi.json)"),
        format!("  auth API           {auth}/openapi.json"),
        format!("  status             {kubectl} get -n {} fortiacluster -w", fortia.namespace),
        "Next, re-shard it while 20 players play:".into(),
        format!("  make demo-reshard N=3    (or: {kubectl} scale {at} --replicas=3)"),
        "End it: make demo-down".into(),
    ]
}

fn figures(cluster: &Cluster, say: Say<'_>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let began = std::env::var("FORTIA_DEMO_BEGAN").ok().and_then(|v| v.parse::<u64>().ok());
    if let (Some(began), Ok(kind)) = (began, std::env::var("FORTIA_DEMO_KIND")) {
        say(format!("figure demo.{kind}_s {} s", now.saturating_sub(began)));
    }
    if let Source::Local(name) = cluster.source() {
        say(format!("figure demo.resident_mb {:.0} MiB", usage::resident_mb(name)));
    }
}

fn state(name: &str) -> PathBuf {
    root().join("build/demo").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_number_of_shards_that_no_world_has_is_refused_in_words_alone() {
        for shards in [0, 65] {
            let refused = reshard(shards, &mut |_| {}, &mut |_| {}).await.expect_err("refused").to_string();
            assert!(refused.starts_with(&format!("N={shards}: a world has 1 to 64 shards")), "{refused}");
        }
    }

    #[test]
    fn the_end_of_a_re_sharding_is_a_full_bar_however_short_it_was() {
        let before = json!({"version": 1, "shards": 2});
        let object = |status: Value| json!({ "status": status });
        let none = object(json!({"layout": before}));
        assert_eq!(bar(&none, &before), "");
        let runs = object(json!({"layout": before, "rebalance": {"phase": "Copying", "keys": 3},
            "conditions": [{"type": "Progressing", "message": "v1→v2 Copying"}]}));
        assert_eq!(bar(&runs, &before), "v1→v2 Copying");
        let over = object(json!({"layout": {"version": 2, "shards": 3},
            "rebalance": {"phase": "Retaining", "keys": 700, "proof": {"keys": 698}}}));
        let line =
            "v1→v2, 2→3 shards  Retaining [####################] 100 %  700 keys carried, 698 compared equal";
        assert_eq!(bar(&over, &before), line);
    }
}
