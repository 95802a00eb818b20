{{- define "stepgate.labels" -}}
app.kubernetes.io/name: stepgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stepgate.policies" -}}
{{- if eq .Values.policies.source "git" -}}
/policies/current/{{ .Values.policies.git.directory }}
{{- else -}}
/policies
{{- end }}
{{- end }}

{{- /* On loopback the program asks itself; an admin listener with TLS is asked by the kubelet, which needs no trust for it. */ -}}
{{- define "stepgate.probe" -}}
{{- if and .root.Values.monitoring.enabled (eq .root.Values.mode "standalone") -}}
httpGet: { path: {{ .path }}, port: admin, scheme: HTTPS }
{{- else -}}
exec: { command: [/stepgate, health{{ with .flag }}, {{ . }}{{ end }}] }
{{- end }}
{{- end }}

{{- /* The gateway's container: no privileges, a root that cannot be written, and probes without a shell. */ -}}
{{- define "stepgate.container" -}}
name: stepgate
image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, --config, /etc/stepgate/config/stepgate.yaml, --format, json]
{{- if eq .Values.mode "standalone" }}
ports:
  - { name: gateway, containerPort: 8443 }
  {{- if .Values.monitoring.enabled }}
  - { name: admin, containerPort: 9090 }
  {{- end }}
{{- end }}
startupProbe:
  {{- include "stepgate.probe" (dict "root" . "path" "/startupz" "flag" "--started") | nindent 2 }}
  periodSeconds: 2
  timeoutSeconds: 6
  failureThreshold: 60
readinessProbe:
  {{- include "stepgate.probe" (dict "root" . "path" "/readyz" "flag" "") | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 6
livenessProbe:
  {{- include "stepgate.probe" (dict "root" . "path" "/livez" "flag" "--live") | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 6
lifecycle:
  preStop:
    sleep: { seconds: {{ .Values.deregistration }} }
resources: {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
volumeMounts:
  - { name: config, mountPath: /etc/stepgate/config, readOnly: true }
  - { name: secrets, mountPath: /etc/stepgate/secrets, readOnly: true }
  {{- if and .Values.tlsSecret (eq .Values.mode "standalone") }}
  - { name: tls, mountPath: /etc/stepgate/tls, readOnly: true }
  {{- end }}
  - { name: policies, mountPath: /policies, readOnly: true }
  - { name: audit, mountPath: /var/lib/stepgate }
{{- end }}

{{- define "stepgate.git-sync" -}}
{{- $git := .root.Values.policies.git -}}
name: {{ .name }}
image: {{ $git.image }}
args:
  - --repo={{ $git.repository }}
  - --ref={{ $git.ref }}
  - --period={{ $git.period }}
  - --root=/policies
  - --link=current
  - --depth=1
  {{- if .once }}
  - --one-time
  {{- end }}
{{- with $git.secret }}
env:
  - name: GITSYNC_USERNAME
    valueFrom: { secretKeyRef: { name: {{ . }}, key: username } }
  - name: GITSYNC_PASSWORD
    valueFrom: { secretKeyRef: { name: {{ . }}, key: password } }
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
resources:
  requests: { cpu: 10m, memory: 32Mi }
  limits: { memory: 128Mi }
volumeMounts:
  - { name: policies, mountPath: /policies }
  - { name: git-home, mountPath: /tmp }
{{- end }}

{{- /* The parts of a pod that both modes share. The first checkout is there before the gateway starts: it wants policies. */ -}}
{{- define "stepgate.pod" -}}
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriod }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- if eq .Values.policies.source "git" }}
initContainers:
  - {{- include "stepgate.git-sync" (dict "root" . "name" "git-first" "once" true) | nindent 4 }}
{{- end }}
{{- end }}

{{- define "stepgate.volumes" -}}
- name: config
  configMap: { name: {{ .Release.Name }}-config }
- name: secrets
  secret: { secretName: {{ .Values.secret }}, defaultMode: 0440 }
{{- if and .Values.tlsSecret (eq .Values.mode "standalone") }}
- name: tls
  secret: { secretName: {{ .Values.tlsSecret }}, defaultMode: 0440 }
{{- end }}
{{- if eq .Values.policies.source "git" }}
- { name: policies, emptyDir: {} }
- { name: git-home, emptyDir: {} }
{{- else }}
- name: policies
  configMap: { name: {{ .Release.Name }}-policies }
{{- end }}
{{- end }}
