//! What a resource token costs: when many want their first one at once, and when it is at hand.

use std::{
    cell::LazyCell,
    fs,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::json;
use stepgate::{
    access::{AccessRequest, Action, Operation, PartitionKey},
    clock::Clock,
    exchange::{Broker, BrokerConfig, KeySource},
    identity::VerifiedSubject,
    policy::{self, Decision, Permit, PolicySet},
    secret::Secret,
    transport::Transport,
};
use stepgate_bench_growth::{Algorithm, Issuer, Room, Upstream, claims};
use tokio::{runtime::Runtime, task::JoinSet};

/// Every client has a scope of its own: the grant's partition, under the client's name.
const POLICY: &str = r#"
roles:
  writer: { grants: [{ container: shop/orders, partition_key: [t1], operations: [items/upsert] }] }
bindings:
  - { role: writer, workloads: [{ issuer: bench, claims: { client_id: "workload-*" } }] }
"#;
/// How many mint at once while the scopes are filled.
const TOGETHER: usize = 64;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Who asks, and its leave.
type Caller = Arc<(VerifiedSubject, Permit)>;

struct House {
    runtime: Runtime,
    transport: Transport,
    account: Upstream,
}

impl House {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let permission = json!({
            "permissionMode": "All", "resource": "dbs/shop/colls/orders", "resourcePartitionKey": ["t1"],
            "_token": format!("type=resource&ver=1&sig=c2lnbmF0dXJl;{};", "p".repeat(200)), "_ts": Clock::System.now().as_secs(),
        });
        let account = Upstream::start(&permission.to_string());
        Self { runtime, transport: Transport::new(None).expect("a client"), account }
    }

    /// Callers of as many scopes.
    fn callers(&self, count: usize) -> Vec<Caller> {
        let (issuer, policy) = (Issuer::new(), policy());
        let keys = Upstream::start(&issuer.jwks(0));
        self.runtime.block_on(async {
            let room = Room::open(&keys, &self.transport).await;
            let mut callers = Vec::new();
            for number in 0..count {
                let request = issuer.request(Algorithm::ES256, &claims(number));
                let subject = room.identity.authenticate(&request).await.expect("a workload");
                let permit = permit(&policy, &subject);
                callers.push(Arc::new((subject, permit)));
            }
            callers
        })
    }

    /// A broker that has read its key and opened a connection for the scope of `first`.
    async fn broker(&self, first: &Caller) -> Arc<Broker> {
        let broker = Broker::new(
            BrokerConfig {
                endpoint: self.account.url.clone(),
                key: KeySource::Env { variable: "KEY".into(), value: Secret::new("b25l".into()), field: None },
                lifetime: DAY,
                cache_capacity: 200_000,
                // The budget is what bounds mints at a real account, and would be all that is seen here.
                units_per_second: u32::MAX,
                unused_for: DAY * 7,
            },
            self.transport.clone(),
            Clock::System,
        );
        exchange(&broker, first).await;
        Arc::new(broker)
    }

    /// Sees to it that `broker` holds the tokens of all these.
    async fn fill(broker: &Arc<Broker>, callers: &[Caller]) {
        for together in callers.chunks(TOGETHER) {
            let mut tasks = JoinSet::new();
            for caller in together {
                let (broker, caller) = (Arc::clone(broker), Arc::clone(caller));
                tasks.spawn(async move { exchange(&broker, &caller).await });
            }
            tasks.join_all().await;
        }
    }

    /// The time until all of `crowd` have their token, who all ask at once for the first time; each mint is one call.
    async fn herd(&self, first: &Caller, crowd: Vec<Caller>, mints: u64) -> Duration {
        let broker = self.broker(first).await;
        let (minted, asked) = (broker.mints(), self.account.asked());
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for caller in crowd {
            let broker = Arc::clone(&broker);
            tasks.spawn(async move { exchange(&broker, &caller).await });
        }
        tasks.join_all().await;
        let took = started.elapsed();
        assert_eq!((broker.mints() - minted, self.account.asked() - asked), (mints, mints));
        took
    }
}

async fn exchange(broker: &Broker, caller: &Caller) {
    let (subject, permit) = &**caller;
    black_box(broker.exchange(subject, permit, "019a8c1e-8f5b-7c60-b5a5-0123456789ab").await.expect("a token"));
}

fn policy() -> PolicySet {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("policy.yaml"), POLICY).expect("a file");
    let config = policy::Config { directory: directory.path().to_owned(), issuers: None };
    policy::load(&config).unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn permit(policy: &PolicySet, subject: &VerifiedSubject) -> Permit {
    let key: PartitionKey = r#"["t1"]"#.parse().expect("a key");
    let request = AccessRequest {
        subject: subject.subject(),
        client: subject.client(),
        claims: subject.claims(),
        context: subject.context(),
        action: Action::Operation(Operation::ItemsUpsert),
        container: &"shop/orders".parse().expect("a container"),
        partition_key: Some(&key),
    };
    match policy::decide(policy, &request) {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}

/// As many first requests at once, of one scope and of as many. The time is that of the whole herd.
fn herd(criterion: &mut Criterion) {
    let house = House::new();
    let mut callers = house.callers(1_001);
    let first = callers.pop().expect("a caller");
    let mut group = criterion.benchmark_group("herd");
    group.sample_size(20);
    for count in [1, 10, 100, 1_000] {
        let many: Vec<Caller> = callers.iter().take(count).cloned().collect();
        let one: Vec<Caller> = many.iter().take(1).cycle().take(count).cloned().collect();
        for (name, crowd, mints) in [("one scope", one, 1), ("as many scopes", many, count as u64)] {
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter_custom(|times| {
                    house.runtime.block_on(async {
                        let mut took = Duration::ZERO;
                        for _ in 0..times {
                            took += house.herd(&first, crowd.clone(), mints).await;
                        }
                        took
                    })
                });
            });
        }
    }
    group.finish();
}

/// A request whose scope's token is at hand, by the number of scopes, in an order that no cache of a processor foresees.
fn at_hand(criterion: &mut Criterion) {
    /// Prime, so that every scope has its turn.
    const STRIDE: usize = 7_919;
    let house = House::new();
    let callers = LazyCell::new(|| house.callers(100_000));
    let broker = LazyCell::new(|| {
        let first = &callers[0];
        house.runtime.block_on(house.broker(first))
    });
    let mut group = criterion.benchmark_group("at hand");
    for count in [1, 10, 100, 1_000, 10_000, 100_000] {
        let held = LazyCell::new(|| {
            let (held, broker) = (&callers[..count], &*broker);
            house.runtime.block_on(House::fill(broker, held));
            held
        });
        let mut turn = 0..;
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            let (held, broker): (&[Caller], &Broker) = (&held, &broker);
            b.iter_custom(|times| {
                let turns = turn.by_ref().take(times as usize).map(|turn: usize| &held[turn * STRIDE % count]);
                house.runtime.block_on(async {
                    let started = Instant::now();
                    for caller in turns {
                        exchange(broker, caller).await;
                    }
                    started.elapsed()
                })
            });
            assert_eq!(broker.mints() as usize, count);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2)).sample_size(50);
    targets = herd, at_hand
}
criterion_main!(benches);
