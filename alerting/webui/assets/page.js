// What the page does beyond its HTML: new rows as they come, and buttons that
// copy. What a job chose goes in as text, never as markup.
'use strict'

const most = 300 // rows that stay

function field(row, name, text) {
  const cell = row.querySelector('td.' + name)
  if (cell) cell.textContent = text
}

// fill puts one row's values into the cells of the template.
function fill(row, r) {
  row.id = 'd-' + r.id
  const time = row.querySelector('time')
  time.dateTime = r.time
  time.textContent = r.clock
  const verdict = row.querySelector('td.verdict')
  verdict.className = 'verdict ' + r.verdict
  verdict.firstElementChild.textContent = { refused: '✕', allowed: '✓', audited: '!' }[r.verdict] || ''
  verdict.lastChild.textContent = ' ' + r.word
  const link = row.querySelector('td.what a')
  link.href = '/decisions/' + encodeURIComponent(r.id)
  link.textContent = r.what
  for (const name of ['pool', 'client', 'reason', 'rule', 'state']) field(row, name, r[name])
}

function follow() {
  const status = document.getElementById('live')
  if (!status || !window.EventSource) return
  const rows = document.getElementById('rows')
  const template = document.getElementById('row').content.firstElementChild
  const missed = document.getElementById('missed')
  const hold = document.getElementById('hold')
  const none = document.getElementById('none')
  let left = 0 // rows that were not shown
  let held = null // rows that came while it pauses

  const say = (text) => { if (status.textContent !== text) status.textContent = text }
  const count = () => {
    missed.hidden = left === 0
    missed.textContent = left.toLocaleString('en') + ' more not shown'
  }
  const show = (r) => {
    let row = document.getElementById('d-' + r.id)
    if (row) {
      if (rows.contains(row)) fill(row, r)
      return
    }
    row = template.cloneNode(true)
    fill(row, r)
    row.classList.add('new')
    rows.prepend(row)
    none.hidden = true
    while (rows.rows.length > most) rows.lastElementChild.remove()
  }

  const from = status.dataset.stream
  const stream = new EventSource(from + (from.endsWith('?') ? '' : '&') + 'since=' + status.dataset.since)
  stream.addEventListener('open', () => say(held ? 'Paused.' : 'Live: new rows come by themselves.'))
  stream.addEventListener('row', (event) => {
    const r = JSON.parse(event.data)
    if (!held) return show(r)
    held.push(r)
    if (held.length > most) {
      held.shift()
      left++
      count()
    }
  })
  stream.addEventListener('missed', (event) => {
    left += Number(event.data)
    count()
  })
  stream.addEventListener('error', () => {
    if (stream.readyState !== EventSource.CLOSED) return say('The daemon does not answer; trying again.')
    say('Not live: signed out, or too many pages are open. ')
    const again = document.createElement('a')
    again.href = ''
    again.textContent = 'Reload'
    status.append(again)
  })
  hold.hidden = false
  hold.addEventListener('click', () => {
    const waiting = held
    held = waiting ? null : []
    hold.textContent = held ? 'Go on' : 'Pause'
    say(held ? 'Paused.' : 'Live: new rows come by themselves.')
    if (waiting) waiting.forEach(show)
  })
  window.addEventListener('pagehide', () => stream.close())
}

function copies() {
  if (!navigator.clipboard) return
  for (const line of document.querySelectorAll('.copy')) {
    const button = document.createElement('button')
    button.type = 'button'
    button.className = 'quiet'
    button.textContent = 'Copy'
    button.addEventListener('click', async () => {
      await navigator.clipboard.writeText(line.querySelector('code').textContent)
      button.textContent = 'Copied'
      setTimeout(() => { button.textContent = 'Copy' }, 2000)
    })
    line.append(button)
  }
}

follow()
copies()
