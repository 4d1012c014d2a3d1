{{- define "fingerpost.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}-fingerpost
{{- end }}

{{- define "fingerpost.labels" -}}
app.kubernetes.io/name: fingerpost
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
