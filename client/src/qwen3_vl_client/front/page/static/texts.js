// The interface in English and Chinese.

const TEXTS = {
  en: {
    title: "Ask the video",
    skip: "Skip to the question",
    new: "New",
    export: "Export",
    settings: "Settings",
    language: "中文",
    media: "Videos and images",
    frames_label: "Frames that the model sees",
    files_label: "Files",
    conversation: "Conversation",
    turns_label: "Questions and answers",
    templates_label: "Templates",
    templates_title: "Templates",
    edit_templates: "Edit…",
    chapters_vtt: "Chapters (WebVTT)",
    chapters_srt: "Chapters (SRT)",
    drop: "Drop a video, or choose one",
    drop_more: "Add more",
    drop_help: "MP4, MOV, MKV, WebM, AVI; images; a subtitle file (SRT, VTT, ASS)",
    empty: "Ask anything about what is seen and read. Times in an answer are links into the video.",
    question: "Your question",
    question_placeholder: "What happens, and when?",
    ask: "Ask",
    stop: "Stop",
    done: "Done",
    add: "Add",
    reset: "Reset",
    remove: (name) => `Remove ${name}`,
    show: (name) => `Show ${name}`,
    seek: (time) => `Go to ${time}`,
    you: "You",
    model: "Answer",
    unplayable: "This browser cannot play the format. The model can: ask, and times will show pictures.",
    caption: (shown, cuts) => `${shown} moments are looked at · ${cuts} cuts · the curve shows how much the picture changes`,
    too_long: " · longer than one context: it will be read part by part",
    phases: { upload: "Upload", look: "Look", frames: "Frames", reading: "Reading", answer: "Answer" },
    uploading: (name, share) => `Uploading ${name}: ${share} %`,
    looking: "Finding out where the video changes",
    sampling: "Choosing frames",
    waiting: "Waiting for memory that other requests hold",
    reading: (read, total) => `Reading: ${read} of ${total} tokens`,
    answering: "Answering",
    parts: (done, total) => `Describing parts: ${done} of ${total}`,
    merging: (done, total) => `Merging: ${done} of ${total}`,
    stopped: "stopped",
    cut_off: "cut off: raise “Longest answer” in the settings to read on",
    cost: (tokens, seconds, prompt) => `${tokens} tokens in ${seconds} s · ${prompt} read`,
    announce_answer: "The answer is complete.",
    errors: {
      invalid_argument: "That cannot be answered as it is.",
      unreadable: "This file cannot be read. Choose another one, or convert it to MP4.",
      not_found: "The file is gone: it has expired or was deleted. Drop it again.",
      resource_exhausted: "The server is full. Wait a moment and try again, or ask with less context.",
      unavailable: "The server is not there. Start it, or wait until it is ready, and try again.",
      deadline_exceeded: "It took too long. Try a shorter video or fewer frames per second.",
      cancelled: "The request was ended. Try again.",
      internal: "The server failed. Try again; its log has the details.",
      network: "The connection broke. Check that the page's server still runs, and try again.",
    },
    fields: {
      max_tokens: ["Longest answer", "In tokens; a word is about one and a half."],
      context_length: ["Context length", "Tokens of video and answer together, up to 262,144. Empty: the model’s own."],
      temperature: ["Temperature", "0 always takes the likeliest word; higher is freer."],
      top_p: ["Top p", "Words are drawn from the likeliest that have this probability together."],
      sampler: ["Frames are taken", "Where the picture changes, or evenly."],
      fps: ["Frames per second", "More finds shorter events and reads longer."],
      long: ["Part by part", "A video that does not fit the context is read in parts, merged into one answer with chapters."],
    },
    samplers: { adaptive: "where it changes", uniform: "evenly" },
    longs: { auto: "when it does not fit", always: "always", never: "never" },
    template_name: "Name",
    template_text: "Question",
  },
  zh: {
    title: "问视频",
    skip: "跳到提问",
    new: "新对话",
    export: "导出",
    settings: "设置",
    language: "English",
    media: "视频和图片",
    frames_label: "模型看到的画面",
    files_label: "文件",
    conversation: "对话",
    turns_label: "问题和回答",
    templates_label: "模板",
    templates_title: "模板",
    edit_templates: "编辑…",
    chapters_vtt: "章节 (WebVTT)",
    chapters_srt: "章节 (SRT)",
    drop: "拖入视频，或点击选择",
    drop_more: "添加文件",
    drop_help: "MP4、MOV、MKV、WebM、AVI；图片；字幕文件 (SRT、VTT、ASS)",
    empty: "画面和文字都可以问。回答中的时间是链接，点击即跳到视频的那一刻。",
    question: "您的问题",
    question_placeholder: "发生了什么？在什么时候？",
    ask: "提问",
    stop: "停止",
    done: "完成",
    add: "添加",
    reset: "恢复默认",
    remove: (name) => `移除 ${name}`,
    show: (name) => `显示 ${name}`,
    seek: (time) => `跳到 ${time}`,
    you: "您",
    model: "回答",
    unplayable: "浏览器不能播放这种格式，但模型可以读：请提问，点击时间会显示画面。",
    caption: (shown, cuts) => `查看 ${shown} 个时刻 · ${cuts} 处切换 · 曲线表示画面变化的程度`,
    too_long: " · 超出一次上下文：将分段阅读",
    phases: { upload: "上传", look: "查看", frames: "取帧", reading: "阅读", answer: "回答" },
    uploading: (name, share) => `正在上传 ${name}：${share} %`,
    looking: "正在查找画面变化之处",
    sampling: "正在选取画面",
    waiting: "正在等待其他请求占用的内存",
    reading: (read, total) => `正在阅读：${read} / ${total} 个词元`,
    answering: "正在回答",
    parts: (done, total) => `正在描述各段：${done} / ${total}`,
    merging: (done, total) => `正在合并：${done} / ${total}`,
    stopped: "已停止",
    cut_off: "回答被截断：请在设置中调高“最长回答”",
    cost: (tokens, seconds, prompt) => `${seconds} 秒内 ${tokens} 个词元 · 阅读 ${prompt} 个`,
    announce_answer: "回答完毕。",
    errors: {
      invalid_argument: "这样无法回答。",
      unreadable: "无法读取此文件。请换一个文件，或转换为 MP4。",
      not_found: "文件已不在：已过期或被删除。请重新拖入。",
      resource_exhausted: "服务器已满。请稍候重试，或减小上下文长度。",
      unavailable: "服务器不在。请启动它，或等它就绪后重试。",
      deadline_exceeded: "用时过长。请换短一些的视频，或降低每秒帧数。",
      cancelled: "请求已结束。请重试。",
      internal: "服务器出错。请重试；详情见其日志。",
      network: "连接中断。请确认网页服务仍在运行，然后重试。",
    },
    fields: {
      max_tokens: ["最长回答", "以词元计；一个汉字约一个词元。"],
      context_length: ["上下文长度", "视频与回答合计的词元数，最多 262,144。留空：用模型自己的。"],
      temperature: ["温度", "0 总是取最可能的词；越高越自由。"],
      top_p: ["Top p", "从概率合计达到此值的最可能的词中抽取。"],
      sampler: ["取帧方式", "在画面变化处取，或均匀地取。"],
      fps: ["每秒帧数", "越多越能发现短暂的事件，阅读也越久。"],
      long: ["分段阅读", "超出上下文的视频分段阅读，再合并为带章节的回答。"],
    },
    samplers: { adaptive: "在变化处", uniform: "均匀" },
    longs: { auto: "超出上下文时", always: "总是", never: "从不" },
    template_name: "名称",
    template_text: "问题",
  },
};

let language = localStorage.getItem("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");

export const currentLanguage = () => language;

/** The text of that name; one that depends on values is called with them. */
export function text(name, ...values) {
  const found = name.split(".").reduce((texts, key) => texts?.[key], TEXTS[language]);
  return typeof found === "function" ? found(...values) : found;
}

/** Switches, and writes all static texts of the page. */
export function setLanguage(chosen) {
  language = chosen;
  localStorage.setItem("language", chosen);
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  document.title = text("title");
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label));
  }
  for (const element of document.querySelectorAll("[data-placeholder]")) {
    element.placeholder = text(element.dataset.placeholder);
  }
  const toggle = document.getElementById("language");
  toggle.textContent = text("language");
  toggle.lang = chosen === "zh" ? "en" : "zh-CN";
}
