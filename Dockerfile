# docker build -t millrace . && docker run --rm -p 1883:1883 -p 8080:8080 millrace serve --dev=any
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /millrace ./cmd/millrace \
 && install -d -m 0700 -o 65532 -g 65532 /out/var/lib/millrace && install -d -m 1777 /out/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /out/ /
COPY --from=build /millrace /usr/local/bin/millrace
LABEL org.opencontainers.image.title="millrace" \
      org.opencontainers.image.description="MQTT for devices, HTTP queues and streams for services" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
EXPOSE 1883 8080
VOLUME /var/lib/millrace
# A container is reached from outside: both listeners take all addresses, and
# nobody comes in without credentials.
ENV MILLRACE_DATA=/var/lib/millrace \
    MILLRACE_MQTT_LISTEN=0.0.0.0:1883 \
    MILLRACE_HTTP_LISTEN=0.0.0.0:8080
ENTRYPOINT ["/usr/local/bin/millrace"]
CMD ["serve"]
