//! From the resource as people wrote it to a plan that builders need not doubt. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use fortia_common::records::{Config, Durability, EditStrategy, WorldConfig};
use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{Resource, ResourceExt};

use super::address::Address;
use super::annotations::{self, Asked};
use crate::build::names::Names;
use crate::crd::spec::{
    DeletionPolicy, Engine, FortiaCluster, Placement, Pods, PullPolicy, Resources, Storage,
};
use crate::settings::Settings;

/// Why a FortiaCluster cannot be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Invalid {
    /// A duration that is none.
    #[error("spec.{0}: {1:?} is not a duration: write numbers with ms, s, m or h, like 1h30m")]
    Duration(&'static str, String),
    /// A quantity that is none.
    #[error("spec.{0}: {1:?} is not a quantity: write a number with Ki, Mi, Gi, like 512Mi")]
    Quantity(&'static str, String),
    /// A world that may grow to less than it is made with.
    #[error(
        "spec.world.limit: {0} chunks are less than the radius of {1}: the limit is the edge of the world"
    )]
    Limit(i32, u32),
    /// An affinity that is none.
    #[error("spec.{0}.affinity is not a Kubernetes Affinity: {1}")]
    Affinity(&'static str, String),
    /// An address that players cannot use.
    #[error(
        "spec.{0}: {1:?} is not an address: write http:// or https://, a host and, where needed, a port, like \
         https://play.example.org or http://192.0.2.7:8080"
    )]
    Address(&'static str, String),
    /// A receiver that logs cannot be sent to.
    #[error(
        "spec.{0}: {1:?} is no receiver of logs: write http://, a host and a port, like http://collector:4317; \
         logs are sent without TLS"
    )]
    Receiver(&'static str, String),
    /// A resource without identity: not from an API server.
    #[error("the FortiaCluster has no {0}")]
    Metadata(&'static str),
}

/// Chunks a world may grow beyond its radius unless told otherwise: every region costs its ticker a look.
const GROWTH: u32 = 64;

/// The pods of one part, with all defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct PodPlan {
    /// Image.
    pub image: String,
    /// When nodes pull it.
    pub pull_policy: PullPolicy,
    /// Requests and limits.
    pub resources: ResourceRequirements,
    /// Labels a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// None: the builder's default.
    pub affinity: Option<Affinity>,
    /// Taints the pods tolerate.
    pub tolerations: Vec<Toleration>,
}

/// The Redis groups.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisPlan {
    /// Primary and replicas of a group together.
    pub nodes: i32,
    /// Which programs the image has.
    pub engine: Engine,
    /// Volume.
    pub storage: Storage,
    /// Its size in bytes.
    pub volume: u64,
    /// `maxmemory` in bytes: three quarters of the pod's memory limit.
    pub max_memory: u64,
    /// Pods.
    pub pods: PodPlan,
}

/// A part with a number of equal servers.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerPlan {
    /// How many.
    pub replicas: i32,
    /// Pods.
    pub pods: PodPlan,
}

/// What a FortiaCluster asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Names of its objects.
    pub names: Names,
    /// Its uid, which every Redis server must carry.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// Wanted shards.
    pub shards: u32,
    /// Wanted placement.
    pub placement: Placement,
    /// What servers are configured with.
    pub config: Config,
    /// Redis groups.
    pub redis: RedisPlan,
    /// Account servers.
    pub auth: ServerPlan,
    /// Game servers.
    pub game: ServerPlan,
    /// Tickers.
    pub ticker: ServerPlan,
    /// Schedulers.
    pub scheduler: ServerPlan,
    /// Log servers.
    pub logserver: ServerPlan,
    /// Their volume.
    pub log_storage: Storage,
    /// Pods of the Job that makes the world.
    pub worldgen: PodPlan,
    /// Pods of the Jobs that carry and collect keys.
    pub migrator: PodPlan,
    /// Source shards carried at once.
    pub parallelism: i32,
    /// How long a reader may wait before carrying makes room; zero: it never does.
    pub read_latency: Duration,
    /// How long the previous version is kept.
    pub retain: Duration,
    /// Whether a re-sharding waits for approval.
    pub require_approval: bool,
    /// What is asked by annotation.
    pub asked: Asked,
    /// What happens to volumes at the end.
    pub deletion_policy: DeletionPolicy,
    /// Points at which migrators and schedulers are made to fail: those the operator was started with.
    pub failpoints: Option<String>,
}

/// Parses a FortiaCluster.
///
/// # Errors
/// When a value passed the API server's rules but cannot be understood.
pub fn validate(cluster: &FortiaCluster, settings: &Settings) -> Result<Plan, Invalid> {
    let spec = &cluster.spec;
    let names = Names {
        cluster: cluster.name_any(),
        namespace: cluster.namespace().ok_or(Invalid::Metadata("namespace"))?,
    };
    let uid = cluster.meta().uid.clone().ok_or(Invalid::Metadata("uid"))?;
    let generation = cluster.meta().generation.unwrap_or_default();
    let pods = PodParser { cluster, settings };
    let server = |part, replicas, p| Ok(ServerPlan { replicas, pods: pods.server(part, p)? });
    Ok(Plan {
        uid,
        generation,
        shards: spec.redis_shards,
        placement: spec.sharding.placement,
        config: config(cluster, &names, generation)?,
        redis: pods.redis()?,
        auth: server("auth", spec.auth.replicas, &spec.auth.pods)?,
        game: server("game", spec.game.replicas, &spec.game.pods)?,
        ticker: server("ticker", spec.ticker.replicas, &spec.ticker.pods)?,
        scheduler: server("scheduler", spec.scheduler.replicas, &spec.scheduler.pods)?,
        logserver: server("logserver", spec.logserver.replicas, &spec.logserver.pods)?,
        log_storage: spec.logserver.storage.clone(),
        worldgen: pods.server("worldgen", &spec.jobs.worldgen)?,
        migrator: pods.migrator(&spec.jobs.migrator)?,
        parallelism: spec.rebalancing.parallelism,
        read_latency: duration("rebalancing.readLatency", &spec.rebalancing.read_latency)?,
        retain: duration("rebalancing.retainPreviousVersion", &spec.rebalancing.retain_previous_version)?,
        require_approval: spec.rebalancing.require_approval,
        asked: annotations::read(cluster.annotations()),
        deletion_policy: spec.deletion_policy,
        failpoints: settings.failpoints.clone(),
        names,
    })
}

fn config(cluster: &FortiaCluster, names: &Names, generation: i64) -> Result<Config, Invalid> {
    let spec = &cluster.spec;
    let period = duration("world.tickPeriod", &spec.world.tick_period)?;
    let pause = duration("rebalancing.maxCutoverPause", &spec.rebalancing.max_cutover_pause)?;
    let radius = u32::try_from(spec.world.radius).unwrap_or(1);
    let own_logs = (spec.logserver.replicas > 0)
        .then(|| format!("http://{}.{}.svc:4317", names.of("logserver"), names.namespace));
    Ok(Config {
        generation: u64::try_from(generation).unwrap_or_default(),
        world: WorldConfig {
            name: spec.world.name.clone().unwrap_or_else(|| names.cluster.clone()),
            seed: u64::try_from(spec.world.seed).unwrap_or_default(),
            radius,
            limit: limit(radius, spec.world.limit)?,
            tick_period_ms: u64::try_from(period.as_millis()).unwrap_or(1000),
        },
        edit_strategy: match spec.ticker.edit_strategy {
            crate::crd::spec::EditStrategy::Queue => EditStrategy::Queue,
            crate::crd::spec::EditStrategy::Lock => EditStrategy::Lock,
        },
        durability: match spec.ticker.durability {
            crate::crd::spec::Durability::Memory => Durability::Memory,
            crate::crd::spec::Durability::Disk => Durability::Disk,
        },
        game_address: match &spec.game.address {
            Some(text) => address("game.address", text)?,
            None => format!("http://{}.{}.svc", names.of("game"), names.namespace),
        },
        logs: match &spec.logserver.endpoint {
            Some(text) => Some(receiver("logserver.endpoint", text)?),
            None => own_logs,
        },
        max_cutover_pause_ms: u64::try_from(pause.as_millis()).unwrap_or(1000),
        accepted_loss: annotations::read(cluster.annotations()).accepted_loss,
    })
}

struct PodParser<'a> {
    cluster: &'a FortiaCluster,
    settings: &'a Settings,
}

impl PodParser<'_> {
    fn server(&self, part: &'static str, pods: &Pods) -> Result<PodPlan, Invalid> {
        self.workload(part, pods, ("20m", "32Mi", "512Mi"))
    }

    /// All of them run at once, one a source shard, and make way for players.
    fn migrator(&self, pods: &Pods) -> Result<PodPlan, Invalid> {
        self.workload("migrator", pods, ("50m", "64Mi", "512Mi"))
    }

    fn workload(
        &self,
        part: &'static str,
        pods: &Pods,
        resources: (&str, &str, &str),
    ) -> Result<PodPlan, Invalid> {
        let images = &self.cluster.spec.images;
        let repository = images.repository.as_ref().unwrap_or(&self.settings.image_repository);
        let tag = images.tag.as_ref().unwrap_or(&self.settings.image_tag);
        self.pods(part, pods, format!("{repository}/fortia-{part}:{tag}"), resources)
    }

    fn redis(&self) -> Result<RedisPlan, Invalid> {
        let redis = &self.cluster.spec.redis;
        let pods =
            self.pods("redis", &redis.pods, self.settings.valkey_image.clone(), ("20m", "64Mi", "512Mi"))?;
        let limit = pods.resources.limits.as_ref().and_then(|l| l.get("memory"));
        let max_memory = match limit {
            Some(limit) => bytes("redis.resources.limits.memory", limit)? / 4 * 3,
            None => 0,
        };
        Ok(RedisPlan {
            nodes: redis.replicas + 1,
            engine: redis.engine,
            storage: redis.storage.clone(),
            volume: bytes("redis.storage.size", &redis.storage.size)?,
            max_memory,
            pods,
        })
    }

    fn pods(
        &self,
        part: &'static str,
        pods: &Pods,
        image: String,
        (cpu, memory, limit): (&str, &str, &str),
    ) -> Result<PodPlan, Invalid> {
        let default = Resources {
            requests: quantities(&[("cpu", cpu), ("memory", memory)]),
            limits: quantities(&[("memory", limit)]),
        };
        let resources = pods.resources.clone().unwrap_or(default);
        let affinity = pods
            .affinity
            .clone()
            .map(serde_json::from_value)
            .transpose()
            .map_err(|error| Invalid::Affinity(part, error.to_string()))?;
        Ok(PodPlan {
            image: pods.image.clone().unwrap_or(image),
            pull_policy: self.cluster.spec.images.pull_policy.unwrap_or(self.settings.pull_policy),
            resources: ResourceRequirements {
                requests: Some(resources.requests).filter(|r| !r.is_empty()),
                limits: Some(resources.limits).filter(|l| !l.is_empty()),
                claims: None,
            },
            node_selector: pods.node_selector.clone(),
            affinity,
            tolerations: pods.tolerations.clone(),
        })
    }
}

fn quantities(values: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    values.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect()
}

/// How far the world may grow, in chunks.
fn limit(radius: u32, wanted: Option<i32>) -> Result<u32, Invalid> {
    let Some(wanted) = wanted else { return Ok(radius.saturating_mul(4).min(radius.saturating_add(GROWTH))) };
    let limit = u32::try_from(wanted).ok().filter(|limit| *limit >= radius);
    limit.ok_or(Invalid::Limit(wanted, radius))
}

/// Parses where players reach something.
fn address(field: &'static str, text: &str) -> Result<String, Invalid> {
    let address = Address::parse(text).ok_or_else(|| Invalid::Address(field, text.to_owned()))?;
    Ok(address.to_string())
}

/// Parses where logs are sent: by gRPC, which has no path here, and no TLS.
fn receiver(field: &'static str, text: &str) -> Result<String, Invalid> {
    let fits = |a: &Address| !a.secure && a.port.is_some() && a.path.is_empty();
    let address =
        Address::parse(text).filter(fits).ok_or_else(|| Invalid::Receiver(field, text.to_owned()))?;
    Ok(address.to_string())
}

/// Parses `1h30m`, `250ms`.
fn duration(field: &'static str, text: &str) -> Result<Duration, Invalid> {
    let refuse = || Invalid::Duration(field, text.to_owned());
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refuse)?;
        let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor_ms = match &rest[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(refuse()),
        };
        total += Duration::from_millis(number.checked_mul(factor_ms).ok_or_else(refuse)?);
        rest = &rest[unit..];
    }
    if text.is_empty() { Err(refuse()) } else { Ok(total) }
}

/// Parses a quantity of bytes.
pub(super) fn bytes(field: &'static str, quantity: &Quantity) -> Result<u64, Invalid> {
    let refuse = || Invalid::Quantity(field, quantity.0.clone());
    let text = quantity.0.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().map_err(|_| refuse())?;
    let factor = match &text[split..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(refuse()),
    };
    // Quantities of memory are far below 2^52, so the product is exact.
    Ok((number * factor) as u64)
}

/// A plan for tests of other modules.
#[cfg(test)]
pub(crate) fn example(spec: &str) -> Plan {
    let mut cluster = FortiaCluster::new("midgard", serde_yaml::from_str(spec).expect("spec"));
    cluster.metadata.namespace = Some("worlds".into());
    cluster.metadata.uid = Some("uid-1".into());
    cluster.metadata.generation = Some(3);
    validate(&cluster, &Settings::from(|_| None).expect("settings")).expect("valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("x", "1h30m").expect("reads"), Duration::from_secs(5400));
        assert_eq!(duration("x", "250ms").expect("reads"), Duration::from_millis(250));
        for bad in ["", "1", "h", "1 h", "1d"] {
            assert!(duration("x", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_world_may_grow_to_four_times_its_radius_but_not_without_bound() {
        assert_eq!(limit(8, None).expect("a limit"), 32);
        assert_eq!(limit(128, None).expect("a limit"), 192);
        assert_eq!(limit(8, Some(8)).expect("a limit"), 8);
        let error = limit(8, Some(7)).expect_err("less than the radius");
        assert!(error.to_string().starts_with("spec.world.limit"), "{error}");
    }

    #[test]
    fn redis_may_use_three_quarters_of_its_memory_limit() {
        let plan = example("{redisShards: 1, redis: {resources: {limits: {memory: 1Gi}}}}");
        assert_eq!(plan.redis.max_memory, 768 * 1024 * 1024);
    }

    #[test]
    fn a_part_can_have_its_own_image_and_the_others_keep_the_common_one() {
        let plan = example("{redisShards: 1, images: {repository: here, tag: dev}, game: {image: mine}}");
        assert_eq!(plan.game.pods.image, "mine");
        assert_eq!(plan.auth.pods.image, "here/fortia-auth:dev");
    }

    #[test]
    fn the_longest_pause_of_a_flip_reaches_the_scheduler_and_the_wanted_latency_the_migrator() {
        let plan = example("{redisShards: 1, rebalancing: {maxCutoverPause: 250ms, readLatency: 0s}}");
        assert_eq!((plan.config.max_cutover_pause_ms, plan.read_latency), (250, Duration::ZERO));
        assert_eq!(example("redisShards: 1").read_latency, Duration::from_millis(2));
    }

    fn refused(spec: &str) -> String {
        let mut cluster = FortiaCluster::new("midgard", serde_yaml::from_str(spec).expect("spec"));
        cluster.metadata.namespace = Some("worlds".into());
        cluster.metadata.uid = Some("uid-1".into());
        validate(&cluster, &Settings::from(|_| None).expect("settings")).expect_err("refused").to_string()
    }

    #[test]
    fn an_affinity_that_is_none_is_refused_by_name() {
        let error = refused("{redisShards: 1, game: {affinity: {podAffinity: 5}}}");
        assert!(error.starts_with("spec.game.affinity"), "{error}");
    }

    #[test]
    fn an_address_is_told_to_players_only_if_they_can_use_it() {
        let told = |spec: &str| example(spec).config.game_address;
        assert_eq!(told("{redisShards: 1}"), "http://midgard-game.worlds.svc");
        let own = "{redisShards: 1, game: {address: 'https://play.example.org:8443/'}}";
        assert_eq!(told(own), "https://play.example.org:8443");
        let error = refused("{redisShards: 1, game: {address: 'over there'}}");
        assert!(
            error.starts_with("spec.game.address: \"over there\" is not an address: write http://"),
            "{error}"
        );
    }

    #[test]
    fn logs_are_sent_only_where_they_can_arrive() {
        let sent = |spec: &str| example(spec).config.logs;
        assert_eq!(sent("redisShards: 1").as_deref(), Some("http://midgard-logserver.worlds.svc:4317"));
        let other = "{redisShards: 1, logserver: {endpoint: 'http://collector:4317'}}";
        assert_eq!(sent(other).as_deref(), Some("http://collector:4317"));
        for bad in
            ["collector:4317", "http://collector", "https://collector:4317", "http://collector:4317/v1"]
        {
            let error = refused(&format!("{{redisShards: 1, logserver: {{endpoint: '{bad}'}}}}"));
            assert!(
                error.starts_with("spec.logserver.endpoint:") && error.contains("like http://collector:4317"),
                "{error}"
            );
        }
    }
}
