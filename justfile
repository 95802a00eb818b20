# The steps themselves are functions of .ci/run.

# What can be done here.
default:
    @just --list

# Everything that must hold before a change is merged, with what is installed already.
check:
    .ci/run --no-install

# Install what `check` needs, and check.
ci:
    .ci/run

# Format the code.
fmt:
    cargo fmt --all

# Lint, with the stand-ins and without.
lint:
    .ci/run fmt clippy clippy_production

# Unit and integration tests; FILTER picks some.
test FILTER="":
    cargo test --locked {{ FILTER }}

# Try the gateway with other people's programs; NAMES picks some, such as `sigkill`.
peers *NAMES:
    tests/peers/run {{ NAMES }}

# Fuzz the readers of tokens and what masks let through for a minute each; wants nightly and `cargo install cargo-fuzz --locked --version 0.13.2`.
fuzz:
    cargo +nightly fuzz run headers -- -max_total_time=60
    cargo +nightly fuzz run claims -- -max_total_time=60
    cargo +nightly fuzz run masks -- -max_total_time=60

# Licences, sources and duplicates of the dependencies; with advisories, which wants the network.
deny:
    .ci/run deny
    cargo deny check advisories

# What a decision costs, and what it costs elsewhere: bench/README.md.
bench *FILTER:
    cargo bench --locked -p stepgate-bench -- {{ FILTER }}

# What a token and a mint cost, by how many there are.
growth *FILTER:
    cargo bench --locked --profile optimised -p stepgate-bench-growth --benches -- {{ FILTER }}

# CPU, latency and memory of a request beside nginx, HAProxy, Envoy and a bare hyper proxy; five minutes.
compare *TARGETS:
    bench/compare {{ TARGETS }}

# What the gateway adds to 300 requests a second, and to 300 at once; three minutes.
state-machine:
    bench/state-machine

# Half an hour of load, reloads, rotations and faults; MINUTES for less.
soak MINUTES="30":
    bench/soak --minutes {{ MINUTES }}

# Train the profile that the image is optimised by; a quarter of an hour.
profile:
    bench/profile

# The image, its tests, and the instructions of a request; wants root, for buildah.
image:
    .ci/run image

# The gateway with its stand-ins, on loopback, until Ctrl-C.
dev:
    cargo run --locked -- dev

# Play the bundled order workflow through a real gateway.
demo:
    cargo run --locked -- demo
