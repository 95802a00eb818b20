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

# Licences, sources and duplicates of the dependencies; with advisories, which wants the network.
deny:
    .ci/run deny
    cargo deny check advisories

# What a decision costs, and what it costs elsewhere: bench/README.md.
bench *FILTER:
    cargo bench --locked -p stepgate-bench -- {{ FILTER }}

# The gateway with its stand-ins, on loopback, until Ctrl-C.
dev:
    cargo run --locked -- dev

# Play the bundled order workflow through a real gateway.
demo:
    cargo run --locked -- demo
