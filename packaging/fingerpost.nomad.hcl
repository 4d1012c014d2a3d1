# Three balancers that share through Redis or Valkey, with the servers of the Consul service "mirror".
job "fingerpost" {
  group "balancer" {
    count = 3
    network {
      port "http" { static = 8080 }
      port "admin" {}
    }
    service {
      name = "fingerpost"
      port = "http"
      check {
        type     = "http"
        port     = "admin"
        path     = "/readyz"
        interval = "2s"
        timeout  = "1s"
      }
    }
    task "balancer" {
      driver = "docker"
      # An admin address that other machines can reach needs a token.
      template {
        data        = "{{ with nomadVar \"nomad/jobs/fingerpost\" }}{{ .token }}{{ end }}"
        destination = "secrets/token"
        perms       = "600"
      }
      config {
        image        = "fingerpost"
        network_mode = "host"
        args = [
          "balancer", "--port", "8080", "--admin", "0.0.0.0:${NOMAD_PORT_admin}", "--admin-token", "/secrets/token",
          "--backends", "dns+srv://mirror.service.consul",
          "--fleet", "redis://engine.service.consul", "--fleet-name", "${NOMAD_ALLOC_ID}",
        ]
      }
    }
  }
}
