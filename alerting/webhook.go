package alerting

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"sallyport/allowlists"
)

// The headers of a webhook post.
const (
	HeaderWebhookID        = "Sallyport-Delivery"  // the message's id: the same when it comes again
	HeaderWebhookTimestamp = "Sallyport-Timestamp" // seconds since 1970, when it was sent
	HeaderWebhookSignature = "Sallyport-Signature" // "v1=" and hex; absent without a secret
)

// webhook posts messages as signed JSON.
type webhook struct {
	endpoint
	secret []byte // nil: posts are not signed
}

func newWebhook(config allowlists.Webhook, client doer) (*webhook, error) {
	endpoint, err := newEndpoint(config.URL, client)
	return &webhook{endpoint, []byte(config.HMACSecret)}, err
}

// A webhookBody is what is posted; docs/alerts.md documents it.
type webhookBody struct {
	Version int           `json:"v"`
	ID      string        `json:"id"`
	Made    time.Time     `json:"time"`
	Alerts  []webhookItem `json:"alerts"`
}

// A webhookItem is one alert as the event log has it, and what is new of it.
type webhookItem struct {
	*Alert
	New    int  `json:"new"`
	Repeat bool `json:"repeat"`
}

func (w *webhook) post(ctx context.Context, m *message) delivery {
	body, err := encodeWebhook(m)
	if err != nil {
		return delivery{stop: true, cause: "the message cannot be written as JSON"}
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	headers := map[string]string{HeaderWebhookID: m.ID, HeaderWebhookTimestamp: timestamp}
	if len(w.secret) > 0 {
		headers[HeaderWebhookSignature] = signWebhook(w.secret, timestamp, body)
	}
	return w.endpoint.post(ctx, body, headers)
}

// encodeWebhook makes the body of a message.
func encodeWebhook(m *message) ([]byte, error) {
	body := webhookBody{Version: 1, ID: m.ID, Made: m.Made}
	for i := range m.Items {
		body.Alerts = append(body.Alerts, webhookItem{&m.Items[i].Alert, m.Items[i].New, m.Items[i].Repeat})
	}
	return json.Marshal(body)
}

// signWebhook is the signature of a body: "v1=" and the hex form of
// HMAC-SHA256 over the timestamp, a dot and the body.
func signWebhook(secret []byte, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp + "."))
	mac.Write(body)
	return "v1=" + hex.EncodeToString(mac.Sum(nil))
}

// errWebhookSignature is what VerifyWebhook says about a post that is not ours.
var errWebhookSignature = errors.New("the signature does not fit, or the timestamp is too old")

// VerifyWebhook reports whether a post came from who holds the secret, within
// tolerance of now: receivers written in Go can use it as it is.
func VerifyWebhook(secret []byte, timestamp, signature string, body []byte, now time.Time, tolerance time.Duration) error {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return errWebhookSignature
	}
	if !hmac.Equal([]byte(signWebhook(secret, timestamp, body)), []byte(signature)) {
		return errWebhookSignature
	}
	return nil
}
