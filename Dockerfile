# For people with docker or a registry: `docker build --target game --tag fortia-game .`
# `make images` makes the same images without either (e2e/cluster/images); a test there keeps user and entry points equal.

FROM rust:1.95-bookworm AS builder
WORKDIR /src
COPY . .
# All programs at once: dependencies are compiled a single time. Debug information stays out, function names stay in.
RUN cargo build --workspace --bins --locked && mkdir /out && for bin in target/debug/fortia-*; do \
      if [ -x "$bin" ] && [ -f "$bin" ]; then strip --strip-debug -o "/out/${bin##*/}" "$bin"; fi; done

# The same Debian release as the builder: its C library fits the programs.
FROM debian:bookworm-slim AS service
WORKDIR /
USER 65532:65532

FROM service AS auth
COPY --from=builder /out/fortia-auth /usr/bin/
ENTRYPOINT ["/usr/bin/fortia-auth"]

FROM service AS game
COPY --from=builder /out/fortia-game /usr/bin/
ENTRYPOINT ["/usr/bin/fortia-game"]

FROM service AS logserver
COPY --from=builder /out/fortia-logserver /usr/bin/
ENTRYPOINT ["/usr/bin/fortia-logserver"]

FROM service AS migrator
COPY --from=builder /out/fortia-migrator /usr/bin/
ENTRYPOINT ["/usr/bin/fortia-migrator"]

FROM service AS operator
COPY --from=builder /out/fortia-operator /usr/bin/
ENTRYPOINT ["/usr/bin/fortia-operator"]

FROM service AS scheduler
COPY --from=builder /out/fortia-scheduler /usr/bin/
ENTRYPOINT ["/usr/bin/fortia-scheduler"]

FROM service AS ticker
COPY --from=builder /out/fortia-ticker /usr/bin/
ENTRYPOINT ["/usr/bin/fortia-ticker"]

FROM service AS worldgen
COPY --from=builder /out/fortia-worldgen /usr/bin/
ENTRYPOINT ["/usr/bin/fortia-worldgen"]

# Debian 12 has no Valkey; its own C library comes along, so that the release differs from the services' is no matter.
FROM debian:trixie-slim AS valkey
RUN apt-get update && apt-get install --yes --no-install-recommends valkey-server valkey-tools && rm -rf /var/lib/apt/lists/*
WORKDIR /
USER 65532:65532
ENTRYPOINT ["/usr/bin/valkey-server"]
