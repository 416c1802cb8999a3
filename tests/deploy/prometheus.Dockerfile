# Debian's Prometheus, in the place of prom/prometheus where no registry of images is at hand.
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && install -d -o nobody -g nogroup /prometheus
USER nobody
