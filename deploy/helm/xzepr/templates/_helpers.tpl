{{- define "xzepr.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Labels of a component: (dict "root" $ "component" "hub"). */ -}}
{{- define "xzepr.selector" -}}
app.kubernetes.io/name: xzepr
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}
{{- define "xzepr.labels" -}}
{{ include "xzepr.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "xzepr.env" -}}
{{- $name := .Release.Name }}
{{- $namespace := .Release.Namespace }}
{{- $settings := merge (dict) .Values.settings (dict
  "XZEPR__DATABASE__URL_FILE" "/run/secrets/xzepr/database/url"
  "XZEPR__JWT__PRIVATE_KEY_PATH" "/run/secrets/xzepr/keys/private.pem"
  "XZEPR__JWT__PUBLIC_KEY_PATH" "/run/secrets/xzepr/keys/public.pem"
  "XZEPR__SERVER__ALLOWED_HOSTS" (printf "%s,%s.%s,%s.%s.svc,%s.%s.svc.cluster.local" $name $name $namespace $name $namespace $name $namespace)) }}
{{- range $key, $value := $settings }}
- name: {{ $key }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{- define "xzepr.pod" -}}
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "xzepr.container" -}}
image: {{ include "xzepr.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env: {{- include "xzepr.env" . | nindent 2 }}
volumeMounts:
  - {name: database, mountPath: /run/secrets/xzepr/database, readOnly: true}
  - {name: keys, mountPath: /run/secrets/xzepr/keys, readOnly: true}
  - {name: data, mountPath: /var/lib/xzepr}
  - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "xzepr.volumes" -}}
- {name: database, secret: {secretName: {{ .Values.secrets.database }}}}
- {name: keys, secret: {secretName: {{ .Values.secrets.keys }}, defaultMode: 0440}}
- {name: data, emptyDir: {}}
- {name: tmp, emptyDir: {}}
{{- end }}
