// nodemailer's smtp-server as a peer. usage: node nodemailer_server.js PACKAGE PORT
// Accepts everything, reads the message, keeps nothing. Without names of clients, TLS or AUTH, as all peers.
'use strict'

// It waits 100 ms before each greeting, to catch those who talk first. Nobody else here does.
const later = setTimeout
globalThis.setTimeout = (call, ms, ...rest) => later(call, ms === 100 ? 0 : ms, ...rest)

const { SMTPServer } = require(process.argv[2])

const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS', 'AUTH'],
    disableReverseLookup: true,
    logger: false,
    maxClients: Infinity,
    socketTimeout: 600000,
    onData(stream, session, done) {
        stream.on('data', () => {})
        stream.on('end', () => done(null, 'OK'))
    },
})
server.on('error', () => {})
server.server.listen({ port: Number(process.argv[3]), host: '127.0.0.1', backlog: 4096 })
