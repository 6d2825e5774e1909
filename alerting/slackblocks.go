package alerting

// The parts of Block Kit that messages are made of
// (https://docs.slack.dev/reference/block-kit). There is none that reads
// markup: no mrkdwn, no user, no emoji element. The links are of ours.

// slackPayload is the body of a post to an incoming webhook. Text is the
// notification, in which Slack reads markup.
type slackPayload struct {
	Text        string `json:"text"`
	Blocks      []any  `json:"blocks"`
	UnfurlLinks bool   `json:"unfurl_links"` // false: no link in a text is followed
	UnfurlMedia bool   `json:"unfurl_media"`
	// Attachments stand below the blocks.
	Attachments []slackAttachment `json:"attachments,omitempty"`
}

// slackAttachment is a part of a message with a bar in a colour, "#rrggbb". Slack
// takes no text beside its blocks, and may hide those behind the fifth.
type slackAttachment struct {
	Color  string `json:"color"`
	Blocks []any  `json:"blocks"`
}

// plainText is a plain_text object; Emoji false keeps :names: as they are.
type plainText struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	Emoji bool   `json:"emoji"`
}

// slackHeader is a header block, of at most 150 characters.
type slackHeader struct {
	Type string    `json:"type"`
	Text plainText `json:"text"`
}

// slackContext is a context block.
type slackContext struct {
	Type     string      `json:"type"`
	Elements []plainText `json:"elements"`
}

// slackRich is a rich_text block.
type slackRich struct {
	Type     string `json:"type"`
	Elements []any  `json:"elements"`
}

// richSection is a rich_text_section or rich_text_preformatted element.
type richSection struct {
	Type     string     `json:"type"`
	Elements []richText `json:"elements"`
}

// richList is a rich_text_list element.
type richList struct {
	Type     string        `json:"type"`
	Style    string        `json:"style"`
	Elements []richSection `json:"elements"`
}

// richText is a text or a link element.
type richText struct {
	Type  string     `json:"type"`
	Text  string     `json:"text"`
	URL   string     `json:"url,omitempty"` // of a link
	Style *richStyle `json:"style,omitempty"`
}

// richStyle is the style of a text element.
type richStyle struct {
	Bold bool `json:"bold,omitempty"`
}
