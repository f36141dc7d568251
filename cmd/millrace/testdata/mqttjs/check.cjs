// Usage: node check.cjs URL...
//
// Connects MQTT.js to each URL, with MQTT 3.1.1 and 5, and has 100 messages of
// each QoS come back in order, on one topic with aliases both ways in MQTT 5.
// It prints a line for each URL and version, and exits 1 at the first fault.
'use strict'
const mqtt = require('mqtt')

function check (url, version) {
  return new Promise((resolve, reject) => {
    const topic = `js/${version}/${Math.random().toString(36).slice(2)}`
    const client = mqtt.connect(url, {
      protocolVersion: version,
      reconnectPeriod: 0,
      connectTimeout: 10000,
      rejectUnauthorized: false,
      autoUseTopicAlias: version === 5,
      properties: version === 5 ? { topicAliasMaximum: 10 } : undefined
    })
    const want = []
    for (const qos of [0, 1, 2]) for (let i = 0; i < 100; i++) want.push(`${qos}:${i}`)
    const got = []
    const timer = setTimeout(() => reject(new Error(`${got.length} of ${want.length} messages came`)), 30000)
    client.on('error', reject)
    client.on('message', (t, payload, packet) => {
      if (t !== topic) return reject(new Error(`topic ${t}, want ${topic}`))
      got.push(payload.toString())
      if (packet.qos !== Number(got[got.length - 1][0])) return reject(new Error(`QoS ${packet.qos} of ${payload}`))
      if (got.length < want.length) return
      clearTimeout(timer)
      for (const qos of ['0', '1', '2']) {
        const of = got.filter(p => p[0] === qos)
        if (of.join() !== want.filter(p => p[0] === qos).join()) return reject(new Error(`QoS ${qos} came as ${of}`))
      }
      client.end(false, () => resolve())
    })
    client.on('connect', async () => {
      try {
        await client.subscribeAsync(topic, { qos: 2 })
        for (const p of want) client.publish(topic, p, { qos: Number(p[0]) })
      } catch (err) {
        reject(err)
      }
    })
  })
}

async function main () {
  for (const url of process.argv.slice(2)) {
    for (const version of [4, 5]) {
      await check(url, version)
      console.log(`ok ${url.split(':')[0]} ${version}`)
    }
  }
}

main().then(() => process.exit(0), err => {
  console.error(err)
  process.exit(1)
})
