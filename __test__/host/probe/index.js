// A second plugin beside ours: what OpenClaw tells plugins, one JSON line each, and its transcripts as its own reader
// gives them.
import { appendFileSync } from "node:fs";
import { listAgentIds } from "openclaw/plugin-sdk/agent-runtime";
import { listSessionEntries } from "openclaw/plugin-sdk/session-store-runtime";
import { readSessionTranscriptEvents } from "openclaw/plugin-sdk/session-transcript-runtime";

/** A channel whose messages go nowhere. */
const channel = {
  id: "probechat",
  meta: {
    id: "probechat",
    label: "ProbeChat",
    selectionLabel: "ProbeChat",
    docsPath: "/channels/probechat",
    blurb: "goes nowhere",
  },
  capabilities: { chatTypes: ["direct"] },
  config: {
    listAccountIds: () => ["default"],
    resolveAccount: () => ({ accountId: "default", enabled: true, configured: true, config: {} }),
    inspectAccount: () => ({ enabled: true, configured: true, tokenStatus: "available" }),
    isConfigured: () => true,
    isEnabled: () => true,
  },
  messaging: {
    normalizeTarget: (target) => target,
    inferTargetChatType: () => "direct",
    targetResolver: { looksLikeId: () => true, hint: "<user>" },
  },
  outbound: {
    deliveryMode: "direct",
    textChunkLimit: 4000,
    sendText: async ({ to }) => ({ channel: "probechat", messageId: `sent-to-${to}` }),
    sendMedia: async ({ to }) => ({ channel: "probechat", messageId: `sent-to-${to}` }),
  },
  gateway: {
    startAccount: ({ abortSignal }) =>
      new Promise((resolve) => abortSignal.addEventListener("abort", resolve, { once: true })),
  },
};

export default {
  id: "core-probe",
  name: "Probe",
  register(api) {
    const note = (record) => appendFileSync(api.pluginConfig.file, `${JSON.stringify(record)}\n`);
    api.registerGatewayMethod(
      "coreProbe.transcripts",
      async ({ respond }) => {
        const transcripts = [];
        for (const agentId of listAgentIds(api.config)) {
          for (const { sessionKey, entry } of listSessionEntries({ agentId, readOnly: true })) {
            const session = { agentId, sessionKey, sessionId: entry.sessionId };
            transcripts.push({ ...session, entries: await readSessionTranscriptEvents(session) });
          }
        }
        respond(true, { transcripts });
      },
      { scope: "operator.read" },
    );
    if (api.registrationMode !== "tool-discovery") api.registerChannel({ plugin: channel });
    if (api.registrationMode !== "full") return;
    api.agent.events.registerAgentEventSubscription({
      id: "probe",
      handle: (event) => note({ event }),
    });
    api.registerService({
      id: "core-probe",
      start() {
        api.runtime.events.onSessionTranscriptUpdate((update) => note({ update }));
      },
    });
  },
};
