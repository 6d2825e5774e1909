package presets_test

import (
	"fmt"
	"strings"
	"testing"

	"sallyport/allowlists/presets"
)

// rows are the ecosystems that a preset is expected for, with the hosts that
// their own documentation names. A leading "w" says that anyone can write there
// with an account of their own, "?" that nobody has held it against a source.
var rows = map[string]string{
	"github-actions": `w:github.com w:api.github.com *.actions.githubusercontent.com codeload.github.com pkg.actions.githubusercontent.com
		results-receiver.actions.githubusercontent.com objects.githubusercontent.com objects-origin.githubusercontent.com
		github-releases.githubusercontent.com github-registry-files.githubusercontent.com release-assets.githubusercontent.com
		raw.githubusercontent.com *.githubapp.com glb-*.github.com`,
	"github-packages": `w:*.pkg.github.com w:ghcr.io github-cloud.githubusercontent.com github-cloud.s3.amazonaws.com lfs.github.com
		dependabot-actions.githubapp.com w:uploads.github.com`,
	"github-ssh":        `w:github.com:22 w:ssh.github.com:443`,
	"github-enterprise": `w:{subdomain}.ghe.com w:*.{subdomain}.ghe.com`,
	"gitlab":            `w:gitlab.com w:registry.gitlab.com ?:packages.gitlab.com ?:cdn.artifacts.gitlab-static.net w?:gitlab.com:22 w?:altssh.gitlab.com:443`,
	"buildkite":         `agent-edge.buildkite.com agent.buildkite.com buildkiteartifacts.com ?:api.buildkite.com w?:github.com:22`,
	"npm":               `w:*.npmjs.org registry.yarnpkg.com repo.yarnpkg.com get.pnpm.io bun.sh w:npm.pkg.github.com nodejs.org`,
	"native-addons":     `cdn.playwright.dev playwright.download.prss.microsoft.com binaries.prisma.sh w:storage.googleapis.com`,
	"setup-tools":       `w:github.com release-assets.githubusercontent.com raw.githubusercontent.com nodejs.org go.dev dl.google.com w:storage.googleapis.com`,
	"pypi":              `pypi.org files.pythonhosted.org bootstrap.pypa.io`,
	"conda":             `conda.anaconda.org repo.anaconda.com download.pytorch.org`,
	"go":                `*.golang.org w:storage.googleapis.com go.dev golang.org`,
	"maven":             `repo.maven.apache.org repo1.maven.org maven.apache.org maven-central.storage-download.googleapis.com`,
	"maven-publish":     `w:central.sonatype.com`,
	"gradle": `services.gradle.org downloads.gradle.org plugins.gradle.org plugins-artifacts.gradle.org repo.gradle.org w:github.com
		release-assets.githubusercontent.com`,
	"android":        `maven.google.com dl.google.com`,
	"crates":         `index.crates.io static.crates.io static.rust-lang.org sh.rustup.rs`,
	"crates-publish": `w:crates.io`,
	"rubygems":       `w:rubygems.org index.rubygems.org api.rubygems.org bundler.rubygems.org cache.ruby-lang.org`,
	"nuget": `api.nuget.org w?:www.nuget.org dist.nuget.org azuresearch-usnc.nuget.org azuresearch-ussc.nuget.org builds.dotnet.microsoft.com
		dotnet.microsoft.com w:pkgs.dev.azure.com oneocsp.microsoft.com:80 ?:globalcdn.nuget.org`,
	"composer": `repo.packagist.org packagist.org getcomposer.org`,
	"hex":      `hex.pm repo.hex.pm builds.hex.pm`,
	"dart":     `pub.dev`,
	"swift":    `download.swift.org cdn.cocoapods.org`,
	"docker-hub": `w:registry-1.docker.io auth.docker.io production.cloudfront.docker.com production.cloudflare.docker.com
		docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com ?:index.docker.io hub.docker.com ?:download.docker.com`,
	"ghcr":              `w:ghcr.io pkg-containers.githubusercontent.com`,
	"quay":              `w:quay.io:80,443 cdn.quay.io:80,443 cdn01.quay.io:80,443 cdn02.quay.io:80,443 cdn03.quay.io:80,443`,
	"redhat":            `registry.redhat.io:80,443 registry.access.redhat.com:80,443 access.redhat.com:80,443 sso.redhat.com:80,443`,
	"ecr":               `api.ecr.{region}.amazonaws.com w:{account}.dkr.ecr.{region}.amazonaws.com ?:prod-{region}-starport-layer-bucket.s3.{region}.amazonaws.com`,
	"ecr-public":        `public.ecr.aws`,
	"gcr":               `gcr.io ?:*.gcr.io w?:storage.googleapis.com ?:oauth2.googleapis.com`,
	"artifact-registry": `w?:{region}-docker.pkg.dev w?:storage.googleapis.com ?:oauth2.googleapis.com`,
	"mcr":               `mcr.microsoft.com *.data.mcr.microsoft.com`,
	"acr":               `w:{registry}.azurecr.io w:{registry}.{region}.data.azurecr.io`,
	"kubernetes":        `registry.k8s.io dl.k8s.io cdn.dl.k8s.io pkgs.k8s.io`,
	"kubernetes-api":    `kubernetes.default.svc.cluster.local`,
	"debian":            `*.debian.org:80,443`,
	"ubuntu": `archive.ubuntu.com:80,443 security.ubuntu.com:80,443 azure.archive.ubuntu.com:80,443 ?:ports.ubuntu.com:80,443
		ppa.launchpad.net:80,443 keyserver.ubuntu.com:80,443 ?:keyserver.ubuntu.com:11371`,
	"alpine": `dl-cdn.alpinelinux.org`,
	"rpm":    `dl.fedoraproject.org mirrors.fedoraproject.org download.opensuse.org cdn.redhat.com vault.centos.org`,
	"vendor-apt": `packages.microsoft.com packages.cloud.google.com packagecloud.io deb.nodesource.com apt.llvm.org ?:download.docker.com
		?:cli.github.com`,
	"homebrew":  `formulae.brew.sh w:ghcr.io ?:pkg-containers.githubusercontent.com w?:github.com ?:raw.githubusercontent.com`,
	"hashicorp": `releases.hashicorp.com registry.terraform.io apt.releases.hashicorp.com yum.releases.hashicorp.com w?:github.com`,
	"sigstore": `fulcio.sigstore.dev rekor.sigstore.dev log20*.rekor.sigstore.dev timestamp.sigstore.dev oauth2.sigstore.dev
		?:tuf-repo-cdn.sigstore.dev`,
	"codecov":     `cli.codecov.io uploader.codecov.io codecov.io ?:api.codecov.io ?:ingest.codecov.io ?:keybase.io w?:storage.googleapis.com`,
	"aws":         `?:sts.amazonaws.com ?:sts.{region}.amazonaws.com`,
	"aws-service": `?:{service}.{region}.amazonaws.com`,
	"aws-s3":      `w?:{bucket}.s3.{region}.amazonaws.com`,
	"gcp":         `?:sts.googleapis.com ?:iamcredentials.googleapis.com ?:oauth2.googleapis.com`,
	"gcp-service": `w?:{service}.googleapis.com`,
	"azure":       `?:login.microsoftonline.com ?:management.azure.com ?:aka.ms`,
	"azure-vault": `w?:{vault}.vault.azure.net`,
	"pki": `crl3.digicert.com:80 crl4.digicert.com:80 ocsp.digicert.com:80 ocsp.sectigo.com:80 crl.sectigo.com:80 ocsp.globalsign.com:80
		crl.globalsign.com:80 ocsp.identrust.com:80 crl.identrust.com:80`,
}

func TestEveryRowIsCovered(t *testing.T) {
	for name, row := range rows {
		if _, ok := presets.Get(name); !ok {
			t.Errorf("no preset %s", name)
			continue
		}
		have := make(map[string]entry)
		for _, e := range read(t, name).Hosts {
			have[e.Host] = e
		}
		for _, word := range strings.Fields(row) {
			marks, host, marked := strings.Cut(word, ":")
			if !marked || strings.Trim(marks, "w?") != "" {
				marks, host = "", word
			}
			e, ok := have[host]
			switch {
			case !ok:
				t.Errorf("%s: no %s", name, host)
			case strings.Contains(marks, "w") && !e.Writable:
				t.Errorf("%s: anyone can write to %s; mark it writable", name, host)
			case strings.Contains(marks, "?") != (e.Verified == "unverified"):
				t.Errorf("%s: %s is verified %q", name, host, e.Verified)
			}
		}
	}
}

// Account names under blob.core.windows.net are first come, first served, so
// GitHub's are given one by one.
func TestGitHubsResultStoresAreNamedOneByOne(t *testing.T) {
	have := make(map[string]bool)
	each(t, func(t *testing.T, preset string, e entry) {
		if strings.HasSuffix(e.pattern(), ".blob.core.windows.net") {
			have[e.Host] = preset == "github-actions"
		}
	})
	for i := range 20 {
		if host := fmt.Sprintf("productionresultssa%d.blob.core.windows.net", i); !have[host] {
			t.Errorf("no %s", host)
		} else {
			delete(have, host)
		}
	}
	if len(have) > 0 {
		t.Errorf("more of that domain: %v", have)
	}
}

// Uploading needs a preset of its own, or a rule.
func TestPublishingIsNotComeByWithDownloads(t *testing.T) {
	each(t, func(t *testing.T, preset string, e entry) {
		for _, publish := range []string{"upload.pypi.org", "crates.io", "central.sonatype.com"} {
			if e.pattern() == publish && !strings.HasSuffix(preset, "-publish") {
				t.Errorf("%s lets packages be published to %s", preset, publish)
			}
		}
	})
}

func TestTheDebianFamilyFindsMirrorsBySRV(t *testing.T) {
	for _, e := range read(t, "debian").Hosts {
		if e.Host != "*.debian.org:80,443" || len(e.DNSTypes) != 1 || e.DNSTypes[0] != "SRV" {
			t.Errorf("%+v", e)
		}
	}
}

func TestNoiseIsKeptQuietAndNotAllowed(t *testing.T) {
	for name, hosts := range map[string]string{
		"quiet-os":        "esm.ubuntu.com cdn.fwupd.org api.snapcraft.io changelogs.ubuntu.com",
		"quiet-telemetry": "checkpoint-api.hashicorp.com",
	} {
		if got := strings.Join(read(t, name).Quiet, " "); got != hosts {
			t.Errorf("%s: %s", name, got)
		}
		for _, host := range strings.Fields(hosts) {
			each(t, func(t *testing.T, preset string, e entry) {
				if e.pattern() == host {
					t.Errorf("%s allows %s", preset, host)
				}
			})
		}
	}
}
