# The base images are arguments, for sites that mirror them.
ARG BUILD_IMAGE=golang:1.26-bookworm
ARG RUN_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
ARG GOPROXY
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/sallyport ./cmd/sallyport \
 && mkdir -p /out/state && cp /etc/ssl/certs/ca-certificates.crt /out/

FROM ${RUN_IMAGE}
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/sallyport /sallyport
COPY --from=build --chown=65532:65532 /out/state /var/lib/sallyport
COPY deploy/image/sallyport.yaml /etc/sallyport/sallyport.yaml
# Docker lets any user bind port 53 in a container (ip_unprivileged_port_start=0).
USER 65532:65532
EXPOSE 3128/tcp 53/tcp 53/udp
HEALTHCHECK --interval=10s --timeout=3s --start-period=2s CMD ["/sallyport", "healthcheck"]
ENTRYPOINT ["/sallyport"]
CMD ["run", "-c", "/etc/sallyport/sallyport.yaml"]
