package test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// importImage makes an image of the given files (path in the image: path here).
func (f *fleet) importImage(name string, files map[string]string, changes ...string) string {
	f.t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{"/": true}
	var mkdir func(dir string)
	mkdir = func(dir string) { // else the engine makes them, closed to root without CAP_DAC_OVERRIDE
		if made[dir] {
			return
		}
		mkdir(path.Dir(dir))
		made[dir] = true
		if err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(dir, "/") + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			f.t.Fatal(err)
		}
	}
	for inside, here := range files {
		mkdir(path.Dir(inside))
		data, err := os.ReadFile(here)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(inside, "/"), Mode: 0o755, Size: int64(len(data))}); err != nil {
			f.t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.t.Fatal(err)
	}
	image := f.tag + ":" + name
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	cmd := exec.Command("docker", append(args, "-", image)...)
	cmd.Stdin = &buf
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("docker import: %v\n%s", err, out)
	}
	return image
}

// buildRepository names the build images that tests make, one a content.
const buildRepository = "sallyport-test-build"

// buildImage is a build image made from this machine's toolchain, as tests
// reach no image registry. It is kept for the next run as long as nothing that
// it is made of changes.
func (f *fleet) buildImage() string {
	f.t.Helper()
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version())
	for _, name := range []string{"../go.mod", "../go.sum", "../.ci/localbase", "/etc/ssl/certs/ca-certificates.crt"} {
		data, err := os.ReadFile(name)
		if err != nil {
			f.t.Fatal(err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	image := buildRepository + ":" + hex.EncodeToString(sum.Sum(nil)[:6])
	if exec.Command("docker", "image", "inspect", image).Run() != nil {
		removeAll(f.t, buildRepository+":")
		if out, err := exec.Command("../.ci/localbase", image).CombinedOutput(); err != nil {
			f.t.Fatalf("making the build image: %v\n%s", err, out)
		}
	}
	return image
}

// sallyportImage builds the image by the project's own Dockerfile.
func (f *fleet) sallyportImage() string {
	f.t.Helper()
	image := f.tag + ":sallyport"
	out, err := exec.Command("make", "-C", "..", "image", "IMAGE="+image, "BUILD_IMAGE="+f.buildImage(), "IMAGE_FLAGS=--build-arg GOPROXY=off").CombinedOutput()
	if err != nil {
		f.t.Fatalf("make image: %v\n%s", err, out)
	}
	removeStage(f.t, string(out))
	return image
}

// removeStage removes the layers of our sources and of the build, which the
// classic builder leaves as images without a name, from its output. The layers
// before, of the modules, stay for the next run. BuildKit leaves none.
func removeStage(t *testing.T, output string) {
	t.Helper()
	_, stage, _ := strings.Cut(output, " : COPY . .\n")
	stage, _, _ = strings.Cut(stage, " : FROM ")
	layers := regexp.MustCompile(`(?m)^ ---> ([0-9a-f]{12})$`).FindAllStringSubmatch(stage, -1)
	for i := len(layers) - 1; i >= 0; i-- {
		if out, err := exec.Command("docker", "rmi", "--no-prune", layers[i][1]).CombinedOutput(); err != nil {
			t.Logf("a layer of the build stays: %s", out) // another build uses it
			return
		}
	}
}

// standinImage holds the origin and the Slack stand-in, with a certificate for
// the hosts of the tests.
func (f *fleet) standinImage() string {
	f.t.Helper()
	dir := f.t.TempDir()
	cert := f.ca.issue("allowed.example", "evil.example")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		f.t.Fatal(err)
	}
	files := map[string]string{"/standin": f.standin}
	for name, block := range map[string]*pem.Block{"cert": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key": {Type: "PRIVATE KEY", Bytes: key}} {
		files["/"+name] = filepath.Join(dir, name)
		if err := os.WriteFile(files["/"+name], pem.EncodeToMemory(block), 0o644); err != nil {
			f.t.Fatal(err)
		}
	}
	return f.importImage("standin", files, `ENTRYPOINT ["/standin"]`)
}

// buildStandin builds the stand-in program, static, and gives its path.
func buildStandin(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "standin")
	build := exec.Command("go", "build", "-o", program, "./standin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the stand-in: %v\n%s", err, out)
	}
	return program
}

// loadedBy are the libraries that programs of this machine load, as importImage
// takes them.
func loadedBy(t *testing.T, programs ...string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for _, program := range programs {
		out, err := exec.Command("ldd", program).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range regexp.MustCompile(`/\S+`).FindAllString(string(out), -1) {
			files[path] = path
		}
	}
	for _, name := range []string{"libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"} { // loaded at run time
		if paths, _ := filepath.Glob("/lib/*/" + name); len(paths) > 0 {
			files[paths[0]] = paths[0]
		}
	}
	return files
}

// runnerImage is a small machine for jobs: busybox, the stand-in for UDP, and
// this machine's curl with the libraries that it loads; more as importImage
// takes it.
func (f *fleet) runnerImage(more ...map[string]string) string {
	f.t.Helper()
	find := func(name string) string {
		path, err := exec.LookPath(name)
		if err != nil {
			f.t.Fatal(err)
		}
		return path
	}
	files := map[string]string{"/bin/busybox": find("busybox"), "/bin/curl": find("curl"), "/bin/standin": f.standin, "/ca.pem": f.ca.file}
	maps.Copy(files, loadedBy(f.t, find("curl")))
	name := "runner"
	for _, m := range more {
		name = "job"
		maps.Copy(files, m)
	}
	return f.importImage(name, files, "ENV PATH=/bin", `CMD ["/bin/busybox", "sleep", "600"]`)
}
