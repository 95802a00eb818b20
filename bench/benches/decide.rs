//! What a decision costs: over more and more bindings, and against two other engines over ten thousand.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use stepgate_bench::{Casbin, Cedar, Question, Shape, Stepgate, Told, questions};

fn bindings(criterion: &mut Criterion) {
    for (name, shape) in
        [("clients", Shape::Clients), ("families", Shape::Families), ("denies", Shape::Denies), ("roles", Shape::Roles)]
    {
        let mut group = criterion.benchmark_group(name);
        for count in [10, 100, 1_000, 10_000, 100_000] {
            let ours = Stepgate::new(shape, count);
            let asks: Vec<_> = questions(count).iter().map(|question| ours.ask(question)).collect();
            let mut next = asks.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(count), |b| {
                b.iter(|| ours.decide(next.next().expect("a cycle")));
            });
        }
        group.finish();
    }
}

fn engines(criterion: &mut Criterion) {
    const COUNT: usize = 10_000;
    let questions = questions(COUNT);
    let ours = Stepgate::new(Shape::Clients, COUNT);
    let answers: Vec<bool> = questions.iter().map(|question| ours.decide(&ours.ask(question))).collect();
    let same = |name: &str, decide: &dyn Fn(&Question) -> bool| {
        for (question, answer) in questions.iter().zip(&answers) {
            assert_eq!(decide(question), *answer, "{name}: {question:?}");
        }
    };
    let mut group = criterion.benchmark_group("engines");
    group.sample_size(20).measurement_time(Duration::from_secs(5));

    let asks: Vec<_> = questions.iter().map(|question| ours.ask(question)).collect();
    let mut next = asks.iter().cycle();
    group.bench_function("stepgate", |b| b.iter(|| ours.decide(next.next().expect("a cycle"))));

    for (told, name) in [(Told::AsRules, "a rule for each binding"), (Told::AsMembership, "membership in roles")] {
        let cedar = Cedar::new(told, COUNT);
        same("cedar", &|question| cedar.decide(&Cedar::ask(question)));
        let asks: Vec<_> = questions.iter().map(Cedar::ask).collect();
        let mut next = asks.iter().cycle();
        group.bench_function(format!("cedar, {name}"), |b| b.iter(|| cedar.decide(next.next().expect("a cycle"))));

        let casbin = Casbin::new(told, COUNT);
        same("casbin", &|question| casbin.decide(question));
        let mut next = questions.iter().cycle();
        group.bench_function(format!("casbin, {name}"), |b| b.iter(|| casbin.decide(next.next().expect("a cycle"))));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2)).sample_size(50);
    targets = bindings, engines
}
criterion_main!(benches);
