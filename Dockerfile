# docker build -t notifyd --build-arg VERSION=v1.2.3 --build-arg REVISION=$(git rev-parse HEAD) .
# docker run -p 127.0.0.1:8080:8080 -v ./keys:/etc/notifyd/keys:ro notifyd
#
# Mount the folder of keys.json, not the file: a new file with its name is seen then.
# The compiler runs on the processor that builds, for the one that the image is for (docker build --platform).
FROM --platform=$BUILDPLATFORM golang:1.26.8 AS build
ARG TARGETOS TARGETARCH
ENV GOOS=$TARGETOS GOARCH=$TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# What 'notifyd version' and notifyd_build_info say. Without it, (devel): the history of the repository is not in here.
ARG VERSION= REVISION=
# CI runs this very line; keep it one line.
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w -X main.version=${VERSION:-} -X main.revision=${REVISION:-}" -o bin/notifyd ./cmd/notifyd
RUN mkdir /data /empty && chmod 1777 /empty

FROM scratch
ARG VERSION= REVISION=
LABEL org.opencontainers.image.title=notifyd org.opencontainers.image.version=$VERSION org.opencontainers.image.revision=$REVISION
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/bin/notifyd /notifyd
COPY --from=build /src/deploy/notifyd.yaml /etc/notifyd/notifyd.yaml
# Nobody's number, the same as in distroless images; it owns nothing but /data. An embedded NATS without data_dir
# needs /tmp.
COPY --from=build --chown=65532:65532 /data /data
COPY --from=build /empty /tmp
USER 65532:65532
VOLUME /data
# 8080 is for clients; 9090 is the admin listener: reach it from the inside, do not publish it.
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/notifyd", "check", "--health", "http://127.0.0.1:9090/healthz"]
ENTRYPOINT ["/notifyd"]
CMD ["serve", "--config", "/etc/notifyd/notifyd.yaml"]
